//! A look through a pickle before candle reads it: the objects that it makes, and how deep they lie in each other.
//!
//! candle copies an object whenever the pickle puts it into its memo or takes it from there. So a few hundred bytes
//! that fetch an object of objects again and again can make it allocate gigabytes. This scan follows the same stack
//! with counts in place of objects.

use std::collections::HashMap;

/// Most objects that reading may make, copies included. A state dict makes some thirty for each tensor.
const OBJECTS_MAX: u64 = 1 << 20;
/// Most objects that may lie in each other: dropping them takes the stack of a thread.
const DEPTH_MAX: u32 = 100;
/// Bytes of a text that count as one object.
const TEXT_BYTES: u64 = 64;

/// Cost of an object on the stack.
#[derive(Clone, Copy)]
struct Cost {
    objects: u64,
    depth: u32,
    is_mark: bool,
}

const ONE: Cost = Cost {
    objects: 1,
    depth: 1,
    is_mark: false,
};

/// Refuses a pickle that would make too many objects, or objects that lie too deep. A pickle that breaks off or has
/// an unknown operation is left to the reader, which refuses it.
pub(super) fn scan(pickle: &[u8]) -> Result<(), String> {
    let mut scan = Scan {
        rest: pickle,
        stack: Vec::new(),
        memo: HashMap::new(),
        objects: 0,
    };
    while scan.step()? {}
    Ok(())
}

struct Scan<'a> {
    rest: &'a [u8],
    stack: Vec<Cost>,
    memo: HashMap<u32, Cost>,
    objects: u64,
}

impl Scan<'_> {
    /// One operation; false at the end, or where the reader will fail.
    fn step(&mut self) -> Result<bool, String> {
        Ok(self.operation()?.is_some())
    }

    fn operation(&mut self) -> Result<Option<()>, String> {
        let Some(code) = self.number(1) else {
            return Ok(None);
        };
        let done = match code as u8 {
            0x80 => self.number(1).map(drop),
            b'c' => match (self.line(), self.line()) {
                (Some(module), Some(class)) => return self.text(module + class).map(Some),
                _ => None,
            },
            b'X' => match self.number(4).filter(|&len| len <= self.rest.len() as u64) {
                Some(len) => {
                    self.rest = &self.rest[len as usize..];
                    return self.text(len).map(Some);
                }
                None => return Err("a text reaches beyond its end".to_owned()),
            },
            b'K' => return self.value(1),
            b'M' => return self.value(2),
            b'J' => return self.value(4),
            b'G' => return self.value(8),
            0x8a => match self.number(1) {
                Some(bytes) => return self.value(bytes as usize),
                None => None,
            },
            b')' | b']' | b'}' | b'd' | b'N' | 0x88 | 0x89 => return self.push(ONE).map(Some),
            b'(' => return self.push(Cost { is_mark: true, ..ONE }).map(Some),
            b't' => {
                return self
                    .take_to_mark()
                    .map_or(Ok(None), |inner| self.push(around(inner)).map(Some));
            }
            0x85 | b'Q' => return self.join(1),
            0x86 | b'R' | b'b' | 0x81 => return self.join(2),
            0x87 => return self.join(3),
            b'a' => return Ok(self.pop(1).and_then(|inner| self.add(inner))),
            b's' => return Ok(self.pop(2).and_then(|inner| self.add(inner))),
            b'e' | b'u' => return Ok(self.take_to_mark().and_then(|inner| self.add(inner))),
            b'q' | b'r' => return self.put(if code as u8 == b'q' { 1 } else { 4 }),
            b'h' | b'j' => return self.get(if code as u8 == b'h' { 1 } else { 4 }),
            // The end, or an operation that the reader does not know.
            _ => None,
        };
        Ok(done)
    }

    /// The next `bytes` bytes as a little-endian number; of more than eight only the length matters.
    fn number(&mut self, bytes: usize) -> Option<u64> {
        let (word, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(
            word.iter()
                .take(8)
                .rev()
                .fold(0, |number, &byte| number << 8 | u64::from(byte)),
        )
    }

    /// Length of the next line.
    fn line(&mut self) -> Option<u64> {
        let end = self.rest.iter().position(|&byte| byte == b'\n')?;
        self.rest = &self.rest[end + 1..];
        Some(end as u64)
    }

    fn value(&mut self, bytes: usize) -> Result<Option<()>, String> {
        match self.number(bytes) {
            Some(_) => self.push(ONE).map(Some),
            None => Ok(None),
        }
    }

    fn text(&mut self, bytes: u64) -> Result<(), String> {
        self.push(Cost {
            objects: 1 + bytes / TEXT_BYTES,
            ..ONE
        })
    }

    fn push(&mut self, cost: Cost) -> Result<(), String> {
        self.count(cost)?;
        self.stack.push(cost);
        Ok(())
    }

    fn count(&mut self, cost: Cost) -> Result<(), String> {
        self.objects = self.objects.saturating_add(cost.objects);
        if self.objects > OBJECTS_MAX {
            return Err(format!("it makes more than {OBJECTS_MAX} objects"));
        }
        if cost.depth > DEPTH_MAX {
            return Err(format!("more than {DEPTH_MAX} objects lie in each other"));
        }
        Ok(())
    }

    /// Takes `count` objects off the stack.
    fn pop(&mut self, count: usize) -> Option<Cost> {
        let at = self.stack.len().checked_sub(count)?;
        Some(sum(self.stack.drain(at..)))
    }

    /// Takes the objects behind the last mark, and the mark, off the stack.
    fn take_to_mark(&mut self) -> Option<Cost> {
        let mark = self.stack.iter().rposition(|cost| cost.is_mark)?;
        let inner = sum(self.stack.drain(mark + 1..));
        self.stack.pop();
        Some(inner)
    }

    /// Puts `count` objects into one.
    fn join(&mut self, count: usize) -> Result<Option<()>, String> {
        match self.pop(count) {
            // They have been counted already.
            Some(inner) => {
                let joined = around(inner);
                self.count(Cost { objects: 1, ..joined })?;
                self.stack.push(joined);
                Ok(Some(()))
            }
            None => Ok(None),
        }
    }

    /// Adds objects to the list or dict at the top.
    fn add(&mut self, inner: Cost) -> Option<()> {
        let top = self.stack.last_mut()?;
        top.objects = top.objects.saturating_add(inner.objects);
        top.depth = top.depth.max(inner.depth + 1);
        Some(())
    }

    fn put(&mut self, bytes: usize) -> Result<Option<()>, String> {
        match (self.number(bytes), self.stack.last().copied()) {
            (Some(id), Some(top)) => {
                self.count(top)?;
                self.memo.insert(id as u32, top);
                Ok(Some(()))
            }
            _ => Ok(None),
        }
    }

    fn get(&mut self, bytes: usize) -> Result<Option<()>, String> {
        let id = self.number(bytes);
        match id.and_then(|id| self.memo.get(&(id as u32)).copied()) {
            Some(cost) => self.push(cost).map(Some),
            None => Ok(None),
        }
    }
}

fn sum(costs: impl Iterator<Item = Cost>) -> Cost {
    costs.fold(
        Cost {
            objects: 0,
            depth: 0,
            is_mark: false,
        },
        |all, cost| Cost {
            objects: all.objects.saturating_add(cost.objects),
            depth: all.depth.max(cost.depth),
            is_mark: false,
        },
    )
}

/// An object that holds `inner`.
fn around(inner: Cost) -> Cost {
    Cost {
        objects: inner.objects.saturating_add(1),
        depth: inner.depth + 1,
        is_mark: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(pickle: &[u8], part: &str) {
        let message = scan(pickle).unwrap_err();
        assert!(message.contains(part), "{message} lacks {part}");
    }

    #[test]
    fn an_object_of_objects_that_is_fetched_again_and_again_is_refused() {
        let mut bomb = b"\x80\x02]q\x00".to_vec();
        for level in 0..60 {
            let fetch = [b'h', level].repeat(4);
            bomb.extend([b"(".as_slice(), &fetch, b"tq", &[level + 1]].concat());
        }
        bomb.push(b'.');
        refused(&bomb, "it makes more than 1048576 objects");
    }

    #[test]
    fn deep_objects_many_marks_and_endless_texts_are_refused() {
        let deep = [b")".as_slice(), &[0x85].repeat(1000), b"."].concat();
        refused(&deep, "more than 100 objects lie in each other");
        refused(&b"(".repeat(2 << 20), "it makes more than 1048576 objects");
        refused(b"\x80\x02X\xff\xff\xff\xff", "a text reaches beyond its end");
        let list = [b"]q\x00".as_slice(), &b"h\x00a".repeat(200)].concat();
        assert!(scan(&list).is_ok(), "the list in the memo stays empty");
    }

    #[test]
    fn a_pickle_that_breaks_off_is_left_to_the_reader() {
        for pickle in [
            b"".as_slice(),
            b"\x80",
            b"cos\nsystem\n(S'x'\ntR.",
            b"tR.",
            b"h\x07",
            b"\x8a\xff\x01",
            b"J\x01",
        ] {
            assert_eq!(scan(pickle), Ok(()), "{pickle:?}");
        }
    }
}
