//! What an executor runs: packed token ids, and the requests that wait for their rows.

/// The token ids of several texts back to back, without padding.
///
/// `cu_seqlens` starts with 0, never falls and ends with `ids.len()`: text `i` is
/// `ids[cu_seqlens[i]..cu_seqlens[i + 1]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedTokens {
    /// Every text's ids, in batch order.
    pub ids: Vec<u32>,
    /// Where each text starts, and at the end where the last one stops: one entry more than texts.
    pub cu_seqlens: Vec<u32>,
}

impl PackedTokens {
    /// No texts yet, with room for `texts` of them and `tokens` ids, so that packing a batch whose size
    /// is known allocates each buffer once.
    pub fn with_capacity(texts: usize, tokens: usize) -> PackedTokens {
        let mut cu_seqlens = Vec::with_capacity(texts + 1);
        cu_seqlens.push(0);
        PackedTokens { ids: Vec::with_capacity(tokens), cu_seqlens }
    }

    /// Packs `texts` in their order.
    pub fn from_texts<'a>(texts: impl IntoIterator<Item = &'a [u32]>) -> PackedTokens {
        let mut packed = PackedTokens::with_capacity(0, 0);
        for text in texts {
            packed.push(text);
        }
        packed
    }

    /// Appends one text.
    pub fn push(&mut self, text: &[u32]) {
        self.ids.extend_from_slice(text);
        self.cu_seqlens.push(self.ids.len() as u32);
    }

    /// How many texts.
    pub fn sequences(&self) -> usize {
        self.cu_seqlens.len().saturating_sub(1)
    }

    /// How many token ids.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Each text's length, in batch order.
    pub fn lengths(&self) -> impl ExactSizeIterator<Item = usize> + Clone + '_ {
        self.cu_seqlens.windows(2).map(|ends| (ends[1] - ends[0]) as usize)
    }
}

impl Default for PackedTokens {
    fn default() -> PackedTokens {
        PackedTokens::with_capacity(0, 0)
    }
}
