//! The conditions on shapes that every device checks before it starts a kernel.

use crate::ops::{KernelError, Tokens};

/// Rows and columns of one operand.
pub(crate) type Shape = (usize, usize);

/// `operand` must have exactly the `wanted` shape.
pub(crate) fn shape(
    kernel: &'static str,
    operand: &'static str,
    (rows, cols): Shape,
    (wanted_rows, wanted_cols): Shape,
) -> Result<(), KernelError> {
    if (rows, cols) == (wanted_rows, wanted_cols) {
        return Ok(());
    }
    Err(KernelError::Shape {
        kernel,
        operand,
        rows,
        cols,
        wanted_rows,
        wanted_cols,
    })
}

/// `operand` must hold `wanted` values.
pub(crate) fn length(
    kernel: &'static str,
    operand: &'static str,
    len: usize,
    wanted: usize,
) -> Result<(), KernelError> {
    if len == wanted {
        return Ok(());
    }
    Err(KernelError::Length {
        kernel,
        operand,
        len,
        wanted,
    })
}

/// Host `values` must fill `rows` x `cols`, and there must be some.
pub(crate) fn filled(
    kernel: &'static str,
    operand: &'static str,
    values: &[f32],
    (rows, cols): Shape,
) -> Result<(), KernelError> {
    let wanted = rows.saturating_mul(cols);
    if wanted == 0 {
        return Err(KernelError::Empty { kernel, operand });
    }
    length(kernel, operand, values.len(), wanted)
}

/// A buffer that an operation reads must not be empty.
pub(crate) fn not_empty(
    kernel: &'static str,
    operand: &'static str,
    (rows, cols): Shape,
) -> Result<(), KernelError> {
    if rows == 0 || cols == 0 {
        return Err(KernelError::Empty { kernel, operand });
    }
    Ok(())
}

/// Each of `indices` must name one of `bound` rows.
pub(crate) fn indices(
    kernel: &'static str,
    operand: &'static str,
    indices: &[u32],
    bound: usize,
) -> Result<(), KernelError> {
    match indices.iter().find(|&&index| index as usize >= bound) {
        None => Ok(()),
        Some(&index) => Err(KernelError::Index {
            kernel,
            operand,
            index: index as usize,
            bound,
        }),
    }
}

/// `cu_seqlens` must rise from 0 to `rows`, each sequence at least one row long.
/// Returns the length of the longest sequence.
pub(crate) fn sequences(kernel: &'static str, cu_seqlens: &[u32], rows: usize) -> Result<usize, KernelError> {
    let wrong = |entry: usize| KernelError::Sequences {
        kernel,
        rows,
        entry,
        value: cu_seqlens.get(entry).map_or(0, |&value| value as usize),
    };
    if cu_seqlens.len() < 2 || cu_seqlens[0] != 0 {
        return Err(wrong(0));
    }
    let mut longest = 0;
    for (entry, pair) in cu_seqlens.windows(2).enumerate() {
        if pair[1] <= pair[0] {
            return Err(wrong(entry + 1));
        }
        longest = longest.max((pair[1] - pair[0]) as usize);
    }
    if cu_seqlens[cu_seqlens.len() - 1] as usize != rows {
        return Err(wrong(cu_seqlens.len() - 1));
    }
    Ok(longest)
}

/// Size of one head in fused rows of `cols` columns.
pub(crate) fn head_dim(cols: usize, heads: usize) -> Result<usize, KernelError> {
    if heads == 0 || cols == 0 || !cols.is_multiple_of(3 * heads) {
        return Err(KernelError::Heads { cols, heads });
    }
    Ok(cols / (3 * heads))
}

/// A relative bias of the given shape must serve `heads` heads and a text of `longest` tokens.
/// Returns the number of tokens it reaches.
pub(crate) fn bias_reach((rows, cols): Shape, heads: usize, longest: usize) -> Result<usize, KernelError> {
    shape("attention", "relative bias", (rows, cols), (heads, cols | 1))?;
    let len_max = cols.div_ceil(2);
    if len_max < longest {
        return Err(KernelError::BiasReach {
            len_max,
            len: longest,
        });
    }
    Ok(len_max)
}

/// The shapes of an embedding's tables and of its norm.
pub(crate) struct EmbeddingShapes {
    pub word: Shape,
    pub position: Option<Shape>,
    pub kind: Option<Shape>,
    pub gamma: Shape,
    pub beta: Shape,
}

/// The tables must be of one width, and every token must name a row of each.
pub(crate) fn tokens(tokens: Tokens<'_>, tables: &EmbeddingShapes) -> Result<(), KernelError> {
    const KERNEL: &str = "embed";
    let (words, cols) = tables.word;
    let count = tokens.ids.len();
    not_empty(KERNEL, "ids", (count, cols))?;
    indices(KERNEL, "token id", tokens.ids, words)?;
    if let Some((rows, width)) = tables.position {
        shape(KERNEL, "position table", (rows, width), (rows, cols))?;
        length(KERNEL, "positions", tokens.positions.len(), count)?;
        indices(KERNEL, "position", tokens.positions, rows)?;
    }
    if let Some((rows, width)) = tables.kind {
        shape(KERNEL, "token type table", (rows, width), (rows, cols))?;
        if !tokens.kinds.is_empty() {
            length(KERNEL, "token types", tokens.kinds.len(), count)?;
        }
        indices(KERNEL, "token type", tokens.kinds, rows)?;
    }
    norm(KERNEL, (tables.gamma, tables.beta), cols)
}

/// Scale and shift of a norm must be one row of `cols`.
pub(crate) fn norm(
    kernel: &'static str,
    (gamma, beta): (Shape, Shape),
    cols: usize,
) -> Result<(), KernelError> {
    shape(kernel, "gamma", gamma, (1, cols))?;
    shape(kernel, "beta", beta, (1, cols))
}
