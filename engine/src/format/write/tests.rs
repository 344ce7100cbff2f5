use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::*;
use crate::dtype::Dtype;
use crate::format::value::Value;
use crate::format::{Container, Metadata, apr, gguf, safetensors};
use crate::tensor::{Shape, Tensor};

const NO_PAIRS: &[(String, Value<'static>)] = &[];

fn tensor(name: &str, dtype: Dtype, dims: &[u64], bytes: Vec<u8>) -> Outgoing {
    let shape = Shape::new(dims).unwrap();
    Outgoing::unchanged(name, Tensor::new(dtype, shape, bytes.into()).unwrap())
}

fn f32s(name: &str, dims: &[u64], values: &[f32]) -> Outgoing {
    Outgoing::unchanged(name, Tensor::from_f32(Shape::new(dims).unwrap(), values).unwrap())
}

fn poured(tensor: &Outgoing) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    tensor.pour(&mut |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(bytes)
}

fn assert_holds(container: &Container<'_>, tensors: &[Outgoing]) {
    assert_eq!(container.tensors.len(), tensors.len());
    for tensor in tensors {
        let found = container.tensor(&tensor.name).unwrap().view;
        assert_eq!(found, tensor.tensor.view().unwrap(), "{}", tensor.name);
    }
}

#[test]
fn the_published_apr_test_vector_is_written_byte_for_byte() {
    let tensors =
        [f32s("w", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), f32s("b", &[2], &[-1.0, 0.5])];
    let metadata = Map::from_iter([("model_type".to_owned(), json!("t"))]);
    let mut written = Vec::new();
    write_apr(&mut written, &metadata, &tensors).unwrap();
    assert_eq!(written, apr::test_vector());
}

#[test]
fn gguf_scalars_take_the_width_that_readers_expect() {
    let pairs = [
        ("a".to_owned(), Value::Unsigned(7)),
        ("b".to_owned(), Value::Unsigned(u64::MAX)),
        ("c".to_owned(), Value::Signed(-1)),
        ("d".to_owned(), Value::Float(f64::from(1e-6f32))),
        ("e".to_owned(), Value::Float(0.1)),
    ];
    let mut written = Vec::new();
    write_gguf(&mut written, &pairs, &[]).unwrap();
    let type_of = |key: &str| {
        let key = [&[1, 0, 0, 0, 0, 0, 0, 0], key.as_bytes()].concat();
        written[written.windows(9).position(|window| window == key).unwrap() + 9]
    };
    assert_eq!(["a", "b", "c", "d", "e"].map(type_of), [4, 10, 5, 6, 12]);
    let Metadata::Gguf(read) = gguf::parse(&written).unwrap().metadata else { panic!("metadata") };
    assert!(read.iter().zip(&pairs).all(|((k, v), (key, value))| *k == key && v == value));
}

#[test]
fn a_name_twice_is_refused_by_every_writer() {
    let tensors = [f32s("w", &[1], &[1.0]), f32s("w", &[1], &[2.0])];
    let codes = [
        write_gguf(Vec::new(), NO_PAIRS, &tensors).unwrap_err().code(),
        write_safetensors(Vec::new(), &BTreeMap::new(), &tensors).unwrap_err().code(),
        write_apr(Vec::new(), &Map::new(), &tensors).unwrap_err().code(),
    ];
    assert_eq!(codes, [Code::GgufTensorName, Code::StDuplicate, Code::AprDuplicate]);
}

#[test]
fn a_writer_refuses_a_dtype_that_its_format_does_not_have() {
    let flat = [tensor("w", Dtype::AprQ4, &[32], vec![0; 18])];
    assert_eq!(write_gguf(Vec::new(), NO_PAIRS, &flat).unwrap_err().code(), Code::DtypeUnsupported);
    let error = write_safetensors(Vec::new(), &BTreeMap::new(), &flat).unwrap_err();
    assert_eq!(error.code(), Code::DtypeUnsupported);
    let error = write_apr(Vec::new(), &Map::new(), &[tensor("w", Dtype::I16, &[1], vec![0; 2])]);
    assert_eq!(error.unwrap_err().code(), Code::DtypeUnsupported);
}

#[test]
fn a_full_disk_is_an_io_error() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    assert_eq!(write_gguf(Full, NO_PAIRS, &[]).unwrap_err().code(), Code::Io);
}

#[test]
fn requantised_tensors_hold_what_the_quantiser_makes() {
    let values: Vec<f32> = (0..512).map(|value| (value as f32).sin()).collect();
    for dtype in [Dtype::Q8_0, Dtype::Q4K, Dtype::F16, Dtype::AprQ4, Dtype::AprQ8] {
        let outgoing = Outgoing { dtype, ..f32s("w", &[2, 256], &values) };
        let mut written = Vec::new();
        write_apr(&mut written, &Map::new(), &[outgoing]).unwrap();
        let container = apr::parse(&written).unwrap();
        let view = container.tensors[0].view;
        assert_eq!(view.dtype(), dtype);
        let found = view.dequantize().unwrap();
        let errors = found.iter().zip(&values).map(|(x, y)| (x - y).abs());
        let worst = errors.fold(0.0f32, f32::max);
        assert!(worst < 0.15, "{dtype} {worst}");
    }
}

#[test]
fn heads_are_reordered_from_halves_to_adjacent_pairs_and_back() {
    let values: Vec<f32> = (0..8).map(|value| value as f32).collect();
    let paired = [0.0f32, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0];
    let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
    for dims in [&[8][..], &[8, 1]] {
        let there = Outgoing { order: RowOrder::Paired { heads: 2 }, ..f32s("q", dims, &values) };
        assert_eq!(poured(&there).unwrap(), bytes(&paired));
        let back = Outgoing { order: RowOrder::Halved { heads: 2 }, ..f32s("q", dims, &paired) };
        assert_eq!(poured(&back).unwrap(), bytes(&values));
    }
    let odd = Outgoing { order: RowOrder::Paired { heads: 3 }, ..f32s("q", &[8], &values) };
    assert_eq!(poured(&odd).unwrap_err().code(), Code::TensorShape);
}

#[test]
fn rows_of_blocks_are_reordered_without_being_touched() {
    let values: Vec<f32> = (0..8 * 32).map(|value| (value as f32).cos()).collect();
    let stored = crate::quant::quantize(Dtype::Q8_0, 32, &values).unwrap();
    let q = tensor("q", Dtype::Q8_0, &[8, 32], stored.clone());
    let paired = poured(&Outgoing { order: RowOrder::Paired { heads: 1 }, ..q }).unwrap();
    let row = |bytes: &[u8], row: usize| bytes[row * 34..(row + 1) * 34].to_vec();
    for (place, from) in [0, 4, 1, 5, 2, 6, 3, 7].into_iter().enumerate() {
        assert_eq!(row(&paired, place), row(&stored, from));
    }
}

#[test]
fn a_value_that_is_not_finite_or_does_not_fit_stops_a_checked_tensor() {
    let stop = |value: f32, dtype: Dtype| {
        let mut values = vec![0.5; 64];
        values[40] = value;
        let outgoing = Outgoing { dtype, finite: true, ..f32s("w", &[2, 32], &values) };
        poured(&outgoing).map_err(|error| (error.code(), error.to_string()))
    };
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for dtype in [Dtype::F32, Dtype::BF16, Dtype::Q8_0] {
            let (code, text) = stop(value, dtype).unwrap_err();
            assert_eq!(code, Code::NonFinite);
            assert!(text.contains("tensor w"), "{text}");
        }
    }
    assert_eq!(stop(70_000.0, Dtype::F16).unwrap_err().0, Code::NonFinite);
    assert_eq!(stop(1e9, Dtype::Q8_0).unwrap_err().0, Code::NonFinite);
    stop(70_000.0, Dtype::BF16).unwrap();
    stop(65_504.0, Dtype::F16).unwrap();
}

#[test]
fn a_tensor_of_many_pieces_is_written_as_one() {
    let values: Vec<f32> = (0..3000 * 1024).map(|value| (value as f32 * 0.001).sin()).collect();
    for dtype in [Dtype::F32, Dtype::BF16, Dtype::Q4_0] {
        let outgoing = Outgoing { dtype, finite: true, ..f32s("w", &[3000, 1024], &values) };
        let whole = crate::quant::quantize(dtype, 1024, &values).unwrap();
        assert!(poured(&outgoing).unwrap() == whole, "{dtype}");
    }
}

/// A dtype, a shape whose rows are whole blocks, and a seed for its bytes.
type Described = (Dtype, Vec<u64>, u8);

fn any_tensors(dtypes: Vec<Dtype>) -> impl Strategy<Value = Vec<Described>> {
    let dims = prop::collection::vec(0u64..4, 0..4);
    let one = (prop::sample::select(dtypes), dims, any::<u8>());
    let one = one.prop_map(|(dtype, mut dims, seed)| {
        if let Some(last) = dims.last_mut() {
            *last *= dtype.block_len() as u64;
        } else if dtype.block_len() > 1 {
            dims.push(dtype.block_len() as u64);
        }
        (dtype, dims, seed)
    });
    prop::collection::vec(one, 0..6)
}

fn build(tensors: &[Described]) -> Vec<Outgoing> {
    let bytes = |dtype: Dtype, dims: &[u64], seed: u8| {
        let shape = Shape::new(dims).unwrap();
        let len = dtype.row_bytes(shape.cols()).unwrap() * shape.rows();
        (0..len).map(|index| (index as u8).wrapping_mul(31).wrapping_add(seed)).collect()
    };
    let named = |(index, (dtype, dims, seed)): (usize, &Described)| {
        // Not in sorted order, and not ASCII only.
        tensor(&format!("{}é.{index}", index % 3), *dtype, dims, bytes(*dtype, dims, *seed))
    };
    tensors.iter().enumerate().map(named).collect()
}

fn without_flat(keep: impl Fn(Dtype) -> bool) -> Vec<Dtype> {
    Dtype::ALL.iter().copied().filter(|dtype| !dtype.is_flat() && keep(*dtype)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn gguf_reads_back_what_was_written(
        tensors in any_tensors(without_flat(|d| d.gguf_id().is_some())),
        words in prop::collection::vec(".*", 0..5),
        number in any::<i64>(),
        alignment in prop::sample::select(vec![1u64, 8, 32, 4096]),
    ) {
        let tensors = build(&tensors);
        let words = ArrayBuf::strings(&words);
        let pairs = [
            ("words".to_owned(), words.value()),
            ("number".to_owned(), Value::Signed(number)),
            ("general.alignment".to_owned(), Value::Unsigned(alignment)),
        ];
        let mut written = Vec::new();
        write_gguf(&mut written, &pairs, &tensors).unwrap();
        let container = gguf::parse(&written).unwrap();
        assert_holds(&container, &tensors);
        prop_assert!(container.notes.is_empty());
        for (key, value) in &pairs {
            prop_assert_eq!(container.metadata.gguf(key), Some(value));
        }
    }

    #[test]
    fn safetensors_reads_back_what_was_written_and_so_does_the_reference(
        tensors in any_tensors(without_flat(|d| d.safetensors_name().is_some())),
        metadata in prop::collection::btree_map(".*", ".*", 0..4),
    ) {
        let tensors = build(&tensors);
        let mut written = Vec::new();
        write_safetensors(&mut written, &metadata, &tensors).unwrap();
        let container = safetensors::parse(&written).unwrap();
        assert_holds(&container, &tensors);
        let Metadata::SafeTensors(read) = &container.metadata else { panic!("metadata") };
        prop_assert_eq!(read, &metadata);
        let reference = ::safetensors::SafeTensors::deserialize(&written).unwrap();
        prop_assert_eq!(reference.len(), tensors.len());
        for tensor in &tensors {
            let found = reference.tensor(&tensor.name).unwrap();
            prop_assert_eq!(found.data(), &**tensor.tensor.bytes());
            let dims: Vec<_> = found.shape().iter().map(|&dim| dim as u64).collect();
            prop_assert_eq!(dims, tensor.shape().dims().to_vec());
        }
    }

    #[test]
    fn what_the_reference_writes_is_read(
        tensors in any_tensors(vec![Dtype::F32, Dtype::BF16, Dtype::I64]),
    ) {
        let tensors = build(&tensors);
        let dtype = |dtype| match dtype {
            Dtype::F32 => ::safetensors::Dtype::F32,
            Dtype::BF16 => ::safetensors::Dtype::BF16,
            _ => ::safetensors::Dtype::I64,
        };
        let view = |tensor: &Outgoing| {
            let dims = tensor.shape().dims().iter().map(|&dim| dim as usize).collect();
            let bytes = tensor.tensor.bytes().to_vec();
            (tensor.name.clone(), (dtype(tensor.dtype), dims, bytes))
        };
        let parts: Vec<(String, (_, Vec<usize>, _))> = tensors.iter().map(view).collect();
        let views = parts.iter().map(|(name, (dtype, dims, bytes))| {
            (name, ::safetensors::tensor::TensorView::new(*dtype, dims.clone(), bytes).unwrap())
        });
        let written = ::safetensors::serialize(views, None).unwrap();
        assert_holds(&safetensors::parse(&written).unwrap(), &tensors);
    }

    #[test]
    fn apr_reads_back_what_was_written(
        tensors in any_tensors(without_flat(|d| !matches!(d, Dtype::I16 | Dtype::Q8K))),
        text in ".*",
        number in any::<i64>(),
    ) {
        // An empty tensor of an ambiguous code is of its first meaning: nothing is stored that could tell.
        let tensors: Vec<_> =
            build(&tensors).into_iter().filter(|tensor| tensor.shape().elements() > 0).collect();
        let metadata: Map<String, Json> = Map::from_iter([
            ("name".to_owned(), json!(text)),
            ("total_size".to_owned(), json!(number)),
        ]);
        let mut written = Vec::new();
        write_apr(&mut written, &metadata, &tensors).unwrap();
        let container = apr::parse(&written).unwrap();
        assert_holds(&container, &tensors);
        prop_assert!(container.notes.is_empty());
        let Metadata::Apr(read) = &container.metadata else { panic!("metadata") };
        prop_assert_eq!(read, &metadata);
    }
}
