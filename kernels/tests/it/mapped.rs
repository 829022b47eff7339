//! Mapped parts of a file: their bytes, their values where they lie as such, and files that got shorter.

use std::fs::File;
use std::io::Write;

use penstock_kernels::mapped::Mapped;

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

#[test]
fn a_part_is_mapped_wherever_it_starts() {
    let bytes: Vec<u8> = (0..20_000_u32).map(|byte| byte as u8).collect();
    let file = file(&bytes);
    for (start, len) in [
        (0, 20_000),
        (1, 7),
        (4095, 4097),
        (4096, 100),
        (19_999, 1),
        (20_000, 0),
    ] {
        let mapped = Mapped::new(&file, start as u64, len).unwrap();
        assert_eq!(&*mapped, &bytes[start..start + len], "{start} + {len}");
    }
}

#[test]
fn bytes_are_values_only_where_they_lie_as_such() {
    let values = [1.5_f32, -0.0, f32::MIN_POSITIVE, 3e38];
    let mut bytes = vec![0; 8];
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    let file = file(&bytes);
    let singles = |start, len| Mapped::new(&file, start, len).unwrap().into_singles();
    assert_eq!(*singles(8, 16).ok().expect("values"), values);
    assert_eq!(*singles(12, 8).ok().expect("values"), values[1..3]);
    for (start, len) in [(9, 12), (8, 15)] {
        let bytes = singles(start, len).err().expect("bytes");
        assert_eq!(bytes.len(), len);
    }
}

#[test]
fn a_file_that_got_shorter_is_an_error() {
    let file = file(&[0; 100]);
    file.set_len(50).unwrap();
    for (start, len) in [(0, 100), (40, 11), (60, 10), (u64::MAX, 2)] {
        let error = Mapped::new(&file, start, len).err().expect("must be refused");
        assert!(error.to_string().starts_with("the file has 50 bytes"), "{error}");
    }
}
