use super::*;
use std::path::Path;

/// A complete file that the public `apr` tool accepts: header, metadata `{"model_type":"t"}`, `b` F32 [2], `w` F32 [2, 3].
pub(in crate::format) fn vector() -> Vec<u8> {
    let rows: &[(usize, &str)] = &[
        (0x00, "41 50 52 00 02 00 00 04 02 00 00 00 40 00 00 00"),
        (0x10, "00 00 00 00 12 00 00 00 80 00 00 00 00 00 00 00"),
        (0x20, "00 01 00 00 00 00 00 00 4f 6b 62 31"),
        (0x40, "7b 22 6d 6f 64 65 6c 5f 74 79 70 65 22 3a 22 74 22 7d"),
        (0x80, "01 00 62 00 01 02 00 00 00 00 00 00 00 00 00 00"),
        (0x90, "00 00 00 00 00 08 00 00 00 00 00 00 00 01 00 77"),
        (0xa0, "00 02 02 00 00 00 00 00 00 00 03 00 00 00 00 00"),
        (0xb0, "00 00 40 00 00 00 00 00 00 00 18 00 00 00 00 00 00 00"),
        (0x100, "00 00 80 bf 00 00 00 3f"),
        (0x140, "00 00 80 3f 00 00 00 40 00 00 40 40 00 00 80 40 00 00 a0 40 00 00 c0 40"),
        (0x180, "f3 38 ec 80"),
    ];
    let mut bytes = vec![0; 388];
    for &(start, row) in rows {
        for (index, pair) in row.split(' ').enumerate() {
            bytes[start + index] = u8::from_str_radix(pair, 16).unwrap();
        }
    }
    bytes
}

/// The vector with `edit` applied and both checksums made right again.
fn edited(edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = vector();
    edit(&mut bytes);
    let checksum = header_checksum(&bytes[..64]);
    bytes[40..44].copy_from_slice(&checksum.to_le_bytes());
    let body = bytes.len() - 4;
    let checksum = crc32fast::hash(&bytes[..body]);
    bytes[body..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn code(edit: impl FnOnce(&mut Vec<u8>)) -> Code {
    parse(&edited(edit)).unwrap_err().code()
}

#[test]
fn the_published_test_vector_is_read() {
    let bytes = vector();
    let container = parse(&bytes).unwrap();
    assert_eq!(container.metadata.apr("model_type").unwrap(), "t");
    let values = |name| container.tensor(name).unwrap().view.dequantize().unwrap();
    assert_eq!(values("b"), [-1.0, 0.5]);
    assert_eq!(values("w"), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(container.tensor("w").unwrap().view.shape().dims(), [2, 3]);
    assert_eq!(container.tensor("w").unwrap().offset, 0x140);
    assert_eq!(container.notes, []);
}

#[test]
fn a_file_cut_at_any_byte_is_an_error_except_that_the_footer_may_be_absent() {
    let bytes = vector();
    for end in 0..bytes.len() {
        match parse(&bytes[..end]) {
            Err(_) => assert_ne!(end, bytes.len() - 4),
            Ok(container) => {
                assert_eq!(end, bytes.len() - 4);
                assert_eq!(container.notes[0].rule, "apr-no-footer");
            }
        }
    }
}

#[test]
fn every_flipped_bit_is_an_error_by_checksum_or_structure() {
    let mut bytes = vector();
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(parse(&bytes).is_err(), "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn no_flipped_bit_makes_the_parser_panic_when_the_checksums_fit() {
    for bit in 0..0x100 * 8 {
        drop(parse(&edited(|bytes| bytes[bit / 8] ^= 1 << (bit % 8))));
    }
}

#[test]
fn each_broken_field_has_its_own_code() {
    assert_eq!(parse(b"APR2").unwrap_err().code(), Code::AprTruncated);
    for magic in [b"APR1", b"APR2", b"APRN", b"APRT", b"APR\x07"] {
        assert_eq!(code(|bytes| bytes[..4].copy_from_slice(magic)), Code::AprVersion);
    }
    assert_eq!(code(|bytes| bytes[4] = 3), Code::AprVersion);
    for flags in [1u16, 2, 4, 8, 16, 0x800] {
        assert_eq!(code(|bytes| bytes[6..8].copy_from_slice(&flags.to_le_bytes())), Code::AprFlags);
    }
    assert_eq!(code(|bytes| bytes[8..12].fill(0xFF)), Code::AprCount);
    assert_eq!(code(|bytes| bytes[8] = 1), Code::AprIndex);
    for at in [12, 24, 32] {
        assert_eq!(code(|bytes| bytes[at..at + 8].fill(0xFF)), Code::AprOffsets);
        assert_eq!(code(|bytes| bytes[at..at + 8].fill(0)), Code::AprOffsets);
    }
    assert_eq!(code(|bytes| bytes[0x40] = b'['), Code::AprMetadata);
    assert_eq!(code(|bytes| bytes[0x82] = 0xFF), Code::AprIndex);
    assert_eq!(code(|bytes| bytes[0x82] = b'x'), Code::AprUnsorted);
    assert_eq!(code(|bytes| bytes[0x82] = b'w'), Code::AprDuplicate);
    assert_eq!(code(|bytes| bytes[0x83] = 77), Code::AprDtype);
    assert_eq!(code(|bytes| bytes[0x83] = 16), Code::DtypeUnsupported);
    assert_eq!(code(|bytes| bytes[0x83] = 3), Code::AprDtype);
    assert_eq!(code(|bytes| bytes[0x84] = 9), Code::AprIndex);
    assert_eq!(code(|bytes| bytes[0x95] = 4), Code::AprTensorRange);
    assert_eq!(code(|bytes| bytes[0x8d..0x95].fill(0xFF)), Code::AprTensorRange);
    assert_eq!(code(|bytes| bytes[0xb2] = 4), Code::AprTensorRange);
    assert_eq!(code(|bytes| bytes.extend_from_slice(&[0; 10])), Code::AprTrailing);
}

#[test]
fn both_checksums_are_verified() {
    let flipped = |at: usize| {
        let mut bytes = vector();
        bytes[at] ^= 1;
        parse(&bytes).unwrap_err().code()
    };
    assert_eq!(flipped(41), Code::AprHeaderChecksum);
    assert_eq!(flipped(50), Code::AprHeaderChecksum);
    assert_eq!(flipped(0x150), Code::AprFooterChecksum);
    assert_eq!(flipped(387), Code::AprFooterChecksum);
}

#[test]
fn an_ambiguous_code_is_decided_by_the_payload_size() {
    let shape = Shape::new(&[2, 32]).unwrap();
    let dtype = |code, size: usize| {
        resolve_dtype(code, shape, &vec![0; size]).map(|view| view.dtype()).map_err(|e| e.code())
    };
    assert_eq!(dtype(3, 512), Ok(Dtype::F64));
    assert_eq!(dtype(3, 40), Ok(Dtype::Q4_1));
    assert_eq!(dtype(6, 64), Ok(Dtype::I8));
    assert_eq!(dtype(6, 44), Ok(Dtype::Q5_0));
    assert_eq!(dtype(7, 64), Ok(Dtype::U8));
    assert_eq!(dtype(7, 48), Ok(Dtype::Q5_1));
    assert_eq!(dtype(8, 68), Ok(Dtype::Q8_0));
    assert_eq!(dtype(8, 36), Ok(Dtype::AprQ4));
    assert_eq!(dtype(9, 68), Ok(Dtype::AprQ8));
    assert_eq!(dtype(8, 37), Err(Code::AprDtype));
}

#[test]
fn k_quant_rows_are_read_padded_or_flat_by_their_size() {
    let shape = Shape::new(&[320, 64]).unwrap();
    for blocks in [320, 80] {
        let bytes = vec![0; blocks * 144];
        let view = resolve_dtype(12, shape, &bytes).unwrap();
        assert_eq!(view.row_stride().is_some(), blocks == 320);
        assert_eq!(view.dequantize().unwrap().len(), 320 * 64);
    }
}

#[test]
fn two_spellings_of_one_hyper_parameter_are_refused_and_null_is_none() {
    let metadata = |text: &str| {
        let header = Header {
            major: 2,
            minor: 0,
            flags: 0,
            tensors: 0,
            metadata: (0, text.len() as u64),
            index: 0,
            data: 0,
        };
        read_metadata(text.as_bytes(), &header)
    };
    let error = metadata(r#"{"num_layers":2,"num_hidden_layers":2}"#).unwrap_err();
    assert_eq!(error.code(), Code::AprMetadata);
    let one = metadata(r#"{"num_layers":null,"num_hidden_layers":2}"#).unwrap();
    assert_eq!(field(&one, "num_layers").unwrap(), 2);
    assert_eq!(metadata(r#"{"a":1,"a":1}"#).unwrap_err().code(), Code::AprMetadata);
}

/// Directory of the files that the public `apr` tool wrote.
fn interop() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/apr-interop")
}

#[test]
fn files_of_the_public_tool_hold_the_tensors_of_their_source() {
    let source = crate::format::Source::open(&interop().join("model.safetensors")).unwrap();
    let source = source.containers().unwrap();
    for (name, tolerance) in [("from-st.apr", 0.0), ("from-st-int8.apr", 0.01)] {
        let file = crate::format::Source::open(&interop().join(name)).unwrap();
        let file = file.containers().unwrap();
        for entry in &source[0].tensors {
            let expected = entry.view.dequantize().unwrap();
            let found = file[0].tensor(&entry.name).unwrap();
            assert_eq!(found.view.shape(), entry.view.shape());
            let found = found.view.dequantize().unwrap();
            let largest = expected.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            for (x, y) in expected.iter().zip(&found) {
                assert!((x - y).abs() <= tolerance * largest, "{name} {}: {x} {y}", entry.name);
            }
        }
    }
}

#[test]
fn the_preserving_writer_stores_the_blocks_of_the_gguf_under_its_names() {
    let gguf = crate::format::Source::open(&interop().join("tiny-q8_0.gguf")).unwrap();
    let apr = crate::format::Source::open(&interop().join("preserve.apr")).unwrap();
    let (gguf, apr) = (gguf.containers().unwrap(), apr.containers().unwrap());
    assert_eq!(apr[0].notes[0].rule, "apr-no-footer");
    assert_eq!(apr[0].tensors.len(), gguf[0].tensors.len());
    for entry in &gguf[0].tensors {
        let found = apr[0].tensor(&entry.name).unwrap();
        assert_eq!(found.view, entry.view, "{}", entry.name);
    }
}

#[test]
fn everything_wrong_is_listed_in_its_order_and_parsing_refuses_the_first() {
    let mut bytes = edited(|bytes| {
        // Metadata that is no object, a dtype that is none, a payload beyond the file.
        bytes[0x40] = b'[';
        bytes[0x83] = 99;
        bytes[0xb2] = 0xff;
        bytes[0xb3] = 0xff;
    });
    *bytes.last_mut().unwrap() ^= 1;
    let mut lenience = Lenience::listing();
    read(&bytes, true, &mut lenience).unwrap();
    let codes: Vec<Code> = lenience.into_errors().iter().map(Error::code).collect();
    assert_eq!(codes[..3], [Code::AprMetadata, Code::AprDtype, Code::AprTensorRange]);
    assert_eq!(parse(&bytes).unwrap_err().code(), codes[0]);
}
