//! Token ids of the model's own tokenizer as input of a v2 request: `input_ids`, and `attention_mask` for rows that
//! are shorter than the tensor.

use bytes::Buf;
use penstock_core::Rejection;
use penstock_engine::request::Input as ModelInput;

use super::request::{Data, Input, check_count, check_texts, short};

/// Name of the tensor of ids.
pub const INPUT_IDS: &str = "input_ids";
/// Name of the tensor that tells ids from padding.
pub const ATTENTION_MASK: &str = "attention_mask";

/// Element types of both tensors.
pub const INT64: &str = "INT64";
pub const INT32: &str = "INT32";

const EXPECTED: &str = "expected INT64 or INT32, shape [n,length]";

/// The rows of `ids` without their padding.
pub fn read(ids: Input, mask: Option<Input>, texts_max: usize) -> Result<Vec<ModelInput>, Rejection> {
    let (n, length) = shape(&ids, texts_max)?;
    let name = ids.name.clone();
    let mask = match mask {
        None => None,
        Some(mask) if mask.shape == ids.shape => Some(numbers(mask, n * length)?),
        Some(mask) => {
            return Err(Rejection::Invalid(format!(
                "input \"{}\" has another shape than \"{name}\"",
                mask.name
            )));
        }
    };
    let ids = numbers(ids, n * length)?;
    let rows = ids.chunks_exact(length).enumerate().map(|(row, ids)| {
        let mask = mask.as_ref().map(|mask| &mask[row * length..(row + 1) * length]);
        let ids = &ids[..mask.map_or(Ok(length), |mask| taken(row, mask))?];
        let id = |(at, &id): (usize, &i64)| {
            u32::try_from(id).map_err(|_| {
                Rejection::Invalid(format!(
                    "element [{row},{at}] of input \"{name}\" is {id}, which is no token id"
                ))
            })
        };
        let ids = ids.iter().enumerate().map(id).collect::<Result<_, _>>()?;
        Ok(ModelInput::TokenIds(ids))
    });
    rows.collect()
}

fn shape(input: &Input, texts_max: usize) -> Result<(usize, usize), Rejection> {
    let size = |extent: i64| usize::try_from(extent).ok().filter(|extent| *extent > 0);
    let found = match *input.shape {
        [n, length] => size(n).zip(size(length)),
        _ => None,
    };
    let Some((n, length)) = found.filter(|(n, length)| n.checked_mul(*length).is_some()) else {
        let cut = &input.shape[..input.shape.len().min(8)];
        return Err(Rejection::Invalid(format!(
            "input \"{}\" has shape {cut:?}; {EXPECTED}",
            input.name
        )));
    };
    check_texts(n, texts_max)?;
    Ok((n, length))
}

/// The `count` elements of a tensor.
fn numbers(input: Input, count: usize) -> Result<Vec<i64>, Rejection> {
    let Input {
        name, datatype, data, ..
    } = input;
    let width = match datatype.as_str() {
        INT64 => size_of::<i64>(),
        INT32 => size_of::<i32>(),
        _ => {
            return Err(Rejection::Invalid(format!(
                "input \"{name}\" has datatype \"{}\"; {EXPECTED}",
                short(&datatype)
            )));
        }
    };
    let numbers = match data {
        Data::Numbers(numbers) => numbers,
        Data::Raw(raw) if count.checked_mul(width) == Some(raw.len()) => raw
            .chunks_exact(width)
            .map(|mut element| match datatype.as_str() {
                INT64 => element.get_i64_le(),
                _ => element.get_i32_le().into(),
            })
            .collect(),
        Data::Raw(raw) => {
            return Err(Rejection::Invalid(format!(
                "input \"{name}\" holds {} bytes, its shape says {count} elements of {width} bytes",
                raw.len()
            )));
        }
        Data::Elements(_) | Data::Texts(_) | Data::Absent => {
            return Err(Rejection::Invalid(format!(
                "input \"{name}\" holds no {datatype} elements; {EXPECTED}"
            )));
        }
    };
    check_count(&name, numbers.len(), count)?;
    Ok(numbers)
}

/// Number of ids before the padding. Padding before or between them would change the positions of the ids.
fn taken(row: usize, mask: &[i64]) -> Result<usize, Rejection> {
    let taken = mask.iter().take_while(|&&taken| taken == 1).count();
    if mask[taken..].iter().all(|&padding| padding == 0) {
        return Ok(taken);
    }
    Err(Rejection::Invalid(format!(
        "row {row} of \"{ATTENTION_MASK}\" is not made of ones and then zeros; put the padding after the ids"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(name: &str, shape: &[i64], data: Data) -> Input {
        Input {
            name: name.to_owned(),
            datatype: INT64.to_owned(),
            shape: shape.to_vec(),
            parameters: Vec::new(),
            data,
        }
    }

    fn ids(numbers: &[i64]) -> Input {
        input("INPUT_IDS", &[2, 3], Data::Numbers(numbers.to_vec()))
    }

    fn mask(numbers: &[i64]) -> Input {
        input(ATTENTION_MASK, &[2, 3], Data::Numbers(numbers.to_vec()))
    }

    fn rows(rows: &[&[u32]]) -> Vec<ModelInput> {
        rows.iter()
            .map(|row| ModelInput::TokenIds(row.to_vec()))
            .collect()
    }

    fn refused(found: Result<Vec<ModelInput>, Rejection>, words: &str) {
        let message = found.unwrap_err().to_string();
        assert!(message.contains(words), "{message:?} does not say {words:?}");
    }

    #[test]
    fn rows_are_read_without_their_padding() {
        let all = [1, 2, 3, 4, 5, 0];
        assert_eq!(read(ids(&all), None, 2), Ok(rows(&[&[1, 2, 3], &[4, 5, 0]])));
        let masked = read(ids(&all), Some(mask(&[1, 1, 1, 1, 1, 0])), 2);
        assert_eq!(masked, Ok(rows(&[&[1, 2, 3], &[4, 5]])));
        let raw: Vec<u8> = all.iter().flat_map(|&n| (n as i32).to_le_bytes()).collect();
        let raw = Input {
            datatype: INT32.to_owned(),
            ..input(INPUT_IDS, &[2, 3], Data::Raw(raw.into()))
        };
        assert_eq!(read(raw, None, 2), Ok(rows(&[&[1, 2, 3], &[4, 5, 0]])));
    }

    #[test]
    fn wrong_ids_are_refused_with_what_would_be_right() {
        let all = [1, 2, 3, 4, 5, 6];
        refused(read(ids(&all), None, 1), "max_request_texts = 1");
        refused(read(ids(&all[1..]), None, 2), "5 elements, its shape says 6");
        refused(
            read(ids(&[1, 2, 3, 4, -5, 6]), None, 2),
            "[1,1] of input \"INPUT_IDS\" is -5",
        );
        refused(read(ids(&all), Some(mask(&[1, 0, 1, 1, 1, 1])), 2), "row 0");
        refused(
            read(ids(&all), Some(mask(&[1, 1, 1, 2, 1, 1])), 2),
            "ones and then zeros",
        );
        let other = Some(input(ATTENTION_MASK, &[3, 2], Data::Numbers(all.to_vec())));
        refused(read(ids(&all), other, 2), "another shape");
        let raw = input(INPUT_IDS, &[2, 3], Data::Raw(vec![0; 47].into()));
        refused(read(raw, None, 2), "47 bytes, its shape says 6 elements of 8");
        for shape in [&[6][..], &[0, 3], &[2, -3], &[i64::MAX, i64::MAX]] {
            let input = input(INPUT_IDS, shape, Data::Numbers(all.to_vec()));
            refused(read(input, None, usize::MAX), "shape [n,length]");
        }
        let texts = input(INPUT_IDS, &[2, 3], Data::Texts(Vec::new()));
        refused(read(texts, None, 2), "holds no INT64 elements");
        let floats = Input {
            datatype: "FP32".to_owned(),
            ..ids(&all)
        };
        refused(read(floats, None, 2), "datatype \"FP32\"");
    }
}
