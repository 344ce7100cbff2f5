use super::*;
use crate::dtype::Dtype;

fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    bytes
}

fn code(header: &str, data: usize) -> Code {
    parse(&file(header, &vec![0; data])).unwrap_err().code()
}

const SMALL: &str = r#"{"__metadata__":{"format":"pt"},
 "b":{"dtype":"BF16","shape":[3],"data_offsets":[8,14]},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}}  "#;

#[test]
fn a_valid_file_gives_its_tensors_in_header_order() {
    let bytes = file(SMALL, &[0; 14]);
    let container = parse(&bytes).unwrap();
    let names: Vec<_> = container.tensors.iter().map(|entry| &*entry.name).collect();
    assert_eq!(names, ["b", "a"]);
    assert_eq!(container.tensors[0].view.dtype(), Dtype::BF16);
    assert_eq!(container.tensors[0].offset, 8 + SMALL.len() as u64 + 8);
    let Metadata::SafeTensors(metadata) = &container.metadata else { panic!("other metadata") };
    assert_eq!(metadata["format"], "pt");
}

#[test]
fn a_file_cut_at_any_byte_is_an_error() {
    let bytes = file(SMALL, &[0; 14]);
    for end in 0..bytes.len() {
        assert!(parse(&bytes[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn no_flipped_bit_makes_the_parser_panic() {
    let mut bytes = file(SMALL, &[0; 14]);
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        drop(parse(&bytes));
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn what_the_reference_accepts_and_should_not_is_refused() {
    let t = r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
    assert_eq!(code(&format!(r#"{{"t":{t},"t":{t}}}"#), 4), Code::StDuplicate);
    assert_eq!(code(r#"{"__metadata__":{"a":"1","a":"2"}}"#, 0), Code::StDuplicate);
    assert_eq!(code(r#"{"__metadata__":{},"__metadata__":{}}"#, 0), Code::StDuplicate);
    let twice = r#"{"t":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    assert_eq!(code(twice, 4), Code::StDuplicate);
    let extra = r#"{"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}}"#;
    assert_eq!(code(extra, 4), Code::StHeaderJson);
    assert_eq!(code(&format!(" {{\"t\":{t}}}"), 4), Code::StHeaderJson);
    let rank9 = r#"{"t":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}"#;
    assert_eq!(code(rank9, 4), Code::StShape);
}

#[test]
fn each_broken_field_has_its_own_code() {
    let tensor = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"t":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    assert_eq!(code("[]", 0), Code::StHeaderJson);
    assert_eq!(code("{}\0\0", 0), Code::StHeaderJson);
    assert_eq!(code(&"{\"a\":".repeat(100_000), 0), Code::StHeaderJson);
    assert_eq!(code(r#"{"__metadata__":{"a":1}}"#, 0), Code::StMetadata);
    assert_eq!(code(&tensor(r#""Q4""#, "[1]", "[0,4]"), 4), Code::StDtype);
    assert_eq!(code(&tensor(r#""f32""#, "[1]", "[0,4]"), 4), Code::StDtype);
    assert_eq!(code(&tensor(r#""BOOL""#, "[4]", "[0,4]"), 4), Code::DtypeUnsupported);
    assert_eq!(code(&tensor(r#""F32""#, "[2]", "[0,4]"), 4), Code::StShape);
    let wrapping = "[4294967296,4294967296]";
    assert_eq!(code(&tensor(r#""F32""#, wrapping, "[0,0]"), 0), Code::StShape);
    assert_eq!(code(&tensor(r#""I8""#, "[-1]", "[0,4]"), 4), Code::StShape);
    for offsets in
        ["[4,0]", "[-1,4]", "[0.0,4]", "[0,4e0]", "[0,18446744073709551616]", "[\"0\",4]", "[0]"]
    {
        assert_eq!(code(&tensor(r#""F32""#, "[1]", offsets), 4), Code::StOffsets, "{offsets}");
    }
    assert_eq!(code(&tensor(r#""F32""#, "[1]", "[4,8]"), 8), Code::StOffsets);
    assert_eq!(code(&tensor(r#""F32""#, "[1]", "[0,4]"), 2), Code::StTruncated);
    assert_eq!(code(&tensor(r#""F32""#, "[1]", "[0,4]"), 5), Code::StTrailing);
    assert_eq!(parse(&[0xFF; 64]).unwrap_err().code(), Code::StHeaderLength);
    assert_eq!(parse(&[0; 7]).unwrap_err().code(), Code::StTruncated);
}

#[test]
fn nine_tensors_that_end_at_two_to_the_64_are_refused_without_overflow() {
    let step = u64::MAX / 9;
    let tensor = |index: u64| {
        let begin = index * step;
        let end = if index == 8 { u64::MAX } else { begin + step };
        let len = end - begin;
        format!(r#""t{index}":{{"dtype":"I8","shape":[{len}],"data_offsets":[{begin},{end}]}}"#)
    };
    let tensors: Vec<_> = (0..9).map(tensor).collect();
    let header = format!("{{{}}}", tensors.join(","));
    assert_eq!(code(&header, 0), Code::StTruncated);
}

#[test]
fn scalars_and_empty_tensors_are_defined() {
    let header = r#"{"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"e":{"dtype":"F32","shape":[7,0],"data_offsets":[4,4]}}"#;
    let bytes = file(header, &1.0f32.to_le_bytes());
    let container = parse(&bytes).unwrap();
    assert_eq!(container.tensors[0].view.dequantize().unwrap(), [1.0]);
    assert_eq!(container.tensors[1].view.dequantize().unwrap(), [0.0; 0]);
}

#[test]
fn a_shard_name_cannot_leave_the_directory() {
    for shard in [
        "../x.safetensors",
        "/x.safetensors",
        "a/../b.safetensors",
        "C:\\\\x.safetensors",
        "https://x/y.safetensors",
        ".x.safetensors",
        "x.bin",
        "a\\u0000.safetensors",
    ] {
        let index = format!(r#"{{"weight_map":{{"t":"{shard}"}}}}"#);
        assert_eq!(
            ShardIndex::parse(index.as_bytes()).unwrap_err().code(),
            Code::StIndex,
            "{shard}"
        );
    }
    let twice = br#"{"weight_map":{"t":"a.safetensors","t":"b.safetensors"}}"#;
    assert_eq!(ShardIndex::parse(twice).unwrap_err().code(), Code::StIndex);
}

#[test]
fn the_index_and_the_shards_must_name_the_same_tensors() {
    let bytes = file(SMALL, &[0; 14]);
    let check = |map: &str| {
        let index = ShardIndex::parse(format!(r#"{{"weight_map":{map}}}"#).as_bytes()).unwrap();
        index.check(&[parse(&bytes).unwrap()]).map_err(|error| error.code())
    };
    assert_eq!(check(r#"{"a":"m.safetensors","b":"m.safetensors"}"#), Ok(()));
    assert_eq!(check(r#"{"a":"m.safetensors"}"#), Err(Code::StIndex));
    let missing = r#"{"a":"m.safetensors","b":"m.safetensors","c":"m.safetensors"}"#;
    assert_eq!(check(missing), Err(Code::StIndex));
}

#[test]
fn everything_wrong_is_listed_in_its_order_and_parsing_refuses_the_first() {
    let header = r#"{"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]},
        "b":{"dtype":"F32","shape":[3],"data_offsets":[8,16]},
        "c":{"dtype":"F32","shape":[1],"data_offsets":[16,20]},
        "d":{"dtype":"F32","shape":[1],"data_offsets":[24,28]}}"#;
    let bytes = file(header, &[0; 26]);
    let mut lenience = Lenience::listing();
    let container = read(&bytes, &mut lenience).unwrap();
    let errors = lenience.into_errors();
    let codes: Vec<Code> = errors.iter().map(Error::code).collect();
    let expected = [
        Code::StDtype,
        Code::StShape,
        Code::StOffsets,
        // The file as a whole, and the tensor that is cut off.
        Code::StTruncated,
        Code::StTruncated,
    ];
    assert_eq!(codes, expected, "{errors:?}");
    assert_eq!(code(header, 26), expected[0]);
    let names: Vec<_> = container.tensors.iter().map(|entry| &*entry.name).collect();
    assert_eq!(names, ["c"]);
}
