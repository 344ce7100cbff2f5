use super::*;

fn pair(key: &str, id: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = (key.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(key.as_bytes());
    bytes.extend_from_slice(&id.to_le_bytes());
    bytes.extend_from_slice(value);
    bytes
}

fn tensor(name: &str, dims: &[u64], id: u32, offset: u64) -> Vec<u8> {
    let mut bytes = (name.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(&(dims.len() as u32).to_le_bytes());
    for dim in dims {
        bytes.extend_from_slice(&dim.to_le_bytes());
    }
    bytes.extend_from_slice(&id.to_le_bytes());
    bytes.extend_from_slice(&offset.to_le_bytes());
    bytes
}

fn file(version: u32, pairs: &[Vec<u8>], tensors: &[Vec<u8>], data: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&(pairs.len() as u64).to_le_bytes());
    bytes.extend(pairs.concat());
    bytes.extend(tensors.concat());
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    bytes.extend_from_slice(data);
    bytes
}

fn small() -> Vec<u8> {
    let mut strings = 8u32.to_le_bytes().to_vec();
    strings.extend_from_slice(&2u64.to_le_bytes());
    for text in ["a", "é"] {
        strings.extend_from_slice(&(text.len() as u64).to_le_bytes());
        strings.extend_from_slice(text.as_bytes());
    }
    let pairs = [
        pair("general.architecture", 8, b"\x05\0\0\0\0\0\0\0qwen2"),
        pair("n", 4, &7u32.to_le_bytes()),
        pair("f", 6, &1.5f32.to_le_bytes()),
        pair("i", 5, &(-3i32).to_le_bytes()),
        pair("b", 7, &[1]),
        pair("tokens", 9, &strings),
    ];
    let data: Vec<u8> = (0..8u8).flat_map(|value| f32::from(value).to_le_bytes()).collect();
    let mut padded = data[..8].to_vec();
    padded.resize(32, 0);
    padded.extend_from_slice(&data[8..32]);
    file(3, &pairs, &[tensor("a", &[2], 0, 0), tensor("w", &[3, 2], 0, 32)], &padded)
}

fn code(bytes: &[u8]) -> Code {
    parse(bytes).unwrap_err().code()
}

#[test]
fn a_valid_file_gives_its_pairs_and_its_tensors_outermost_dimension_first() {
    let bytes = small();
    let container = parse(&bytes).unwrap();
    assert_eq!(container.version, 3);
    let value = |key| container.metadata.gguf(key).unwrap();
    assert_eq!(value("general.architecture").as_str(), Some("qwen2"));
    assert_eq!(value("n").as_u32(), Some(7));
    assert_eq!(value("f").as_f32(), Some(1.5));
    assert_eq!(value("i").as_i64(), Some(-3));
    assert_eq!(value("b").as_bool(), Some(true));
    let tokens = value("tokens").as_array().unwrap().strings().unwrap();
    assert_eq!(tokens.collect::<Vec<_>>(), ["a", "é"]);
    let w = container.tensor("w").unwrap();
    assert_eq!(w.view.shape().dims(), [2, 3]);
    assert_eq!(w.view.dequantize().unwrap(), [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    assert_eq!(container.notes, []);
}

#[test]
fn a_file_cut_at_any_byte_is_an_error() {
    let bytes = small();
    for end in 0..bytes.len() {
        assert!(parse(&bytes[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn no_flipped_bit_makes_the_parser_panic() {
    let mut bytes = small();
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        drop(parse(&bytes));
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn counts_are_checked_against_the_file_before_anything_is_allocated() {
    for counts in [(u64::MAX, 0), (0, u64::MAX), (1 << 59, 1 << 32)] {
        let mut bytes = file(3, &[], &[], &[]);
        bytes[8..16].copy_from_slice(&counts.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&counts.1.to_le_bytes());
        assert_eq!(code(&bytes), Code::GgufCount);
    }
}

#[test]
fn each_broken_field_has_its_own_code() {
    let with = |pairs: &[Vec<u8>], tensors: &[Vec<u8>]| code(&file(3, pairs, tensors, &[0; 4096]));
    let one = 1u32.to_le_bytes();
    assert_eq!(code(b"GGUF\x09\0\0\0"), Code::GgufVersion);
    assert_eq!(code(b"GGUF\0\0\0\x03"), Code::GgufBigEndian);
    assert_eq!(with(&[pair("", 4, &one)], &[]), Code::GgufKey);
    assert_eq!(with(&[pair("k", 4, &one), pair("k", 4, &one)], &[]), Code::GgufDuplicateKey);
    assert_eq!(with(&[pair("k", 13, &one)], &[]), Code::GgufValueType);
    assert_eq!(with(&[pair("k", 7, &[2])], &[]), Code::GgufBool);
    assert_eq!(with(&[pair("k", 8, &[0xFF; 8])], &[]), Code::GgufString);
    assert_eq!(
        with(&[pair("k", 9, &[[9u8; 1].as_slice(), &[0; 11]].concat())], &[]),
        Code::GgufArray
    );
    assert_eq!(
        with(&[pair("general.alignment", 4, &3u32.to_le_bytes())], &[]),
        Code::GgufAlignment
    );
    assert_eq!(
        with(&[pair("general.alignment", 10, &32u64.to_le_bytes())], &[]),
        Code::GgufAlignment
    );
    assert_eq!(with(&[], &[tensor(&"n".repeat(64), &[1], 0, 0)]), Code::GgufTensorName);
    assert_eq!(
        with(&[], &[tensor("t", &[1], 0, 0), tensor("t", &[1], 0, 32)]),
        Code::GgufTensorName
    );
    assert_eq!(with(&[], &[tensor("t", &[1; 5], 0, 0)]), Code::GgufTensorRank);
    assert_eq!(with(&[], &[tensor("t", &[1 << 32, 1 << 32], 0, 0)]), Code::GgufTensorSize);
    assert_eq!(with(&[], &[tensor("t", &[255], 12, 0)]), Code::GgufTensorSize);
    assert_eq!(with(&[], &[tensor("t", &[1], 4, 0)]), Code::GgufTensorType);
    assert_eq!(with(&[], &[tensor("t", &[256], 16, 0)]), Code::GgufTensorUnsupported);
    assert_eq!(with(&[], &[tensor("t", &[1], 0, 7)]), Code::GgufTensorOffset);
    assert_eq!(with(&[], &[tensor("t", &[1], 0, 1 << 20)]), Code::GgufTensorOffset);
    assert_eq!(with(&[], &[tensor("t", &[1 << 20], 0, 0)]), Code::GgufTruncated);
    assert_eq!(
        with(&[], &[tensor("t", &[9], 0, 0), tensor("u", &[1], 0, 32)]),
        Code::GgufTensorOverlap
    );
}

#[test]
fn gaps_and_trailing_bytes_are_noted_not_refused() {
    let tensors = [tensor("t", &[1], 0, 64)];
    let bytes = file(2, &[], &tensors, &[0; 100]);
    let container = parse(&bytes).unwrap();
    let rules: Vec<_> = container.notes.iter().map(|note| note.rule).collect();
    assert_eq!(rules, ["gguf-gap", "gguf-trailing-bytes"]);
}

#[test]
fn scalars_and_empty_tensors_are_defined() {
    let tensors = [tensor("scalar", &[], 0, 0), tensor("empty", &[5, 0], 0, 32)];
    let bytes = file(3, &[], &tensors, &[0; 32]);
    let container = parse(&bytes).unwrap();
    assert_eq!(container.tensors[0].view.dequantize().unwrap(), [0.0]);
    assert_eq!(container.tensors[1].view.dequantize().unwrap(), [0.0; 0]);
}

#[test]
fn everything_wrong_is_listed_in_its_order_and_parsing_refuses_the_first() {
    let pairs = [pair("n", 4, &7u32.to_le_bytes()), pair("n", 4, &7u32.to_le_bytes())];
    let tensors = [
        tensor("a", &[2], 0, 1),
        tensor("b", &[3], 99, 0),
        tensor("a", &[2], 0, 32),
        tensor("whole", &[2], 0, 32),
        tensor("long", &[64], 0, 0),
    ];
    let bytes = file(3, &pairs, &tensors, &[0; 64]);
    let mut lenience = Lenience::listing();
    let container = read(&bytes, &mut lenience).unwrap();
    let codes: Vec<Code> = lenience.into_errors().iter().map(Error::code).collect();
    let expected = [
        Code::GgufDuplicateKey,
        Code::GgufTensorType,
        Code::GgufTensorName,
        Code::GgufTensorOffset,
        Code::GgufTruncated,
    ];
    assert_eq!(codes, expected);
    assert_eq!(code(&bytes), expected[0]);
    let names: Vec<_> = container.tensors.iter().map(|entry| &*entry.name).collect();
    assert_eq!(names, ["whole"]);
}
