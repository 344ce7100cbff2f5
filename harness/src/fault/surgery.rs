//! Precise damage to model files: find the bytes of one thing, change them, leave the rest as it was.
//!
//! Checksums are made right again afterwards unless the checksum itself is the target: a fault must be caught for
//! what it is, not because the file no longer adds up.

use apr_engine::format::{Container, Format, apr, gguf, safetensors, sniff};
use apr_engine::{Dtype, Shape};
use serde_json::{Map, Value as Json};

/// Bytes of the APR header in front of the metadata.
const APR_HEADER_BYTES: usize = 64;
/// Bytes of the APR footer.
const APR_FOOTER_BYTES: usize = 4;

/// Parses a container whose format is found by its bytes.
fn parse(bytes: &[u8]) -> Option<Container<'_>> {
    match sniff::format(bytes).ok()? {
        Format::Gguf => gguf::parse(bytes).ok(),
        Format::SafeTensors => safetensors::parse(bytes).ok(),
        Format::Apr => apr::parse(bytes).ok(),
    }
}

/// A tensor found in a file.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Name in the file.
    pub(super) name: String,
    /// Offset of its first byte.
    pub(super) start: usize,
    /// Number of its bytes.
    pub(super) len: usize,
    /// Element type.
    pub(super) dtype: Dtype,
    /// Shape, outermost first.
    pub(super) shape: Shape,
}

/// Every tensor of a file, in file order; `None` when the bytes are no model.
pub(super) fn tensors(bytes: &[u8]) -> Option<Vec<Found>> {
    let container = parse(bytes)?;
    let found = container.tensors.iter().map(|entry| Found {
        name: entry.name.to_string(),
        start: entry.offset as usize,
        len: entry.view.bytes().len(),
        dtype: entry.view.dtype(),
        shape: entry.view.shape(),
    });
    Some(found.collect())
}

/// Changes the stored bytes of the tensors that `pick` chooses; `None` when there is no such tensor.
pub(super) fn edit_tensors(
    bytes: &[u8],
    pick: impl Fn(&Found) -> bool,
    mut edit: impl FnMut(&Found, &mut [u8]),
) -> Option<Vec<u8>> {
    let chosen: Vec<Found> = tensors(bytes)?.into_iter().filter(pick).collect();
    if chosen.is_empty() {
        return None;
    }
    let mut changed = bytes.to_vec();
    for found in &chosen {
        edit(found, changed.get_mut(found.start..found.start.checked_add(found.len)?)?);
    }
    Some(reseal(changed))
}

/// Decodes the chosen tensors to f32, lets `edit` change the values, and stores them in their own dtype again.
pub(super) fn edit_values(
    bytes: &[u8],
    pick: impl Fn(&Found) -> bool,
    mut edit: impl FnMut(&Found, &mut [f32]),
) -> Option<Vec<u8>> {
    edit_tensors(bytes, pick, |found, stored| {
        let Ok(view) = apr_engine::TensorView::new(found.dtype, found.shape, stored) else {
            return;
        };
        let Ok(mut values) = view.dequantize() else { return };
        edit(found, &mut values);
        let cols = view.cols();
        if let Ok(encoded) = apr_engine::quant::quantize(found.dtype, cols, &values)
            && encoded.len() == stored.len()
        {
            stored.copy_from_slice(&encoded);
        }
    })
}

/// Makes the checksums of an APR file right again; other formats have none.
pub(super) fn reseal(mut bytes: Vec<u8>) -> Vec<u8> {
    if !bytes.starts_with(b"APR\0") || bytes.len() < APR_HEADER_BYTES + APR_FOOTER_BYTES {
        return bytes;
    }
    let mut header = crc32fast::Hasher::new();
    header.update(&bytes[..40]);
    header.update(&bytes[44..APR_HEADER_BYTES]);
    bytes[40..44].copy_from_slice(&header.finalize().to_le_bytes());
    let end = bytes.len() - APR_FOOTER_BYTES;
    let footer = crc32fast::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(&footer.to_le_bytes());
    bytes
}

/// Replaces every occurrence of `from` in front of the tensor data by `to` of the same length.
pub(super) fn rename(bytes: &[u8], from: &str, to: &str) -> Option<Vec<u8>> {
    assert_eq!(from.len(), to.len(), "a rename must not move anything");
    let end = tensors(bytes)?.iter().map(|found| found.start).min()?;
    let mut changed = bytes.to_vec();
    let places: Vec<usize> = changed[..end]
        .windows(from.len())
        .enumerate()
        .filter(|(_, window)| *window == from.as_bytes())
        .map(|(place, _)| place)
        .collect();
    for &place in &places {
        changed[place..place + from.len()].copy_from_slice(to.as_bytes());
    }
    (!places.is_empty()).then(|| reseal(changed))
}

/// Where the value of a GGUF key begins: behind its type id.
fn gguf_value(bytes: &[u8], key: &str) -> Option<(usize, u32)> {
    if !bytes.starts_with(b"GGUF") {
        return None;
    }
    let mut pattern = (key.len() as u64).to_le_bytes().to_vec();
    pattern.extend_from_slice(key.as_bytes());
    let place = bytes.windows(pattern.len()).position(|window| window == pattern)? + pattern.len();
    let kind = u32::from_le_bytes(bytes.get(place..place + 4)?.try_into().ok()?);
    Some((place + 4, kind))
}

/// Overwrites a scalar GGUF value of four bytes whose key ends in `suffix`.
pub(super) fn set_gguf_word(bytes: &[u8], suffix: &str, value: [u8; 4]) -> Option<Vec<u8>> {
    let key = gguf_key(bytes, suffix)?;
    let (place, kind) = gguf_value(bytes, &key)?;
    // u32, i32 and f32 are the four-byte kinds.
    if !matches!(kind, 4..=6) {
        return None;
    }
    let mut changed = bytes.to_vec();
    changed[place..place + 4].copy_from_slice(&value);
    Some(changed)
}

/// Overwrites a GGUF string by one of the same length.
pub(super) fn set_gguf_text(bytes: &[u8], key: &str, from: &str, to: &str) -> Option<Vec<u8>> {
    assert_eq!(from.len(), to.len(), "a new string must not move anything");
    let (place, _) = gguf_value(bytes, key)?;
    let text = place + 8..place + 8 + from.len();
    if bytes.get(text.clone())? != from.as_bytes() {
        return None;
    }
    let mut changed = bytes.to_vec();
    changed[text].copy_from_slice(to.as_bytes());
    Some(changed)
}

/// Overwrites a GGUF string by blanks.
pub(super) fn blank_gguf_text(bytes: &[u8], key: &str) -> Option<Vec<u8>> {
    let (place, kind) = gguf_value(bytes, key)?;
    if kind != 8 {
        return None;
    }
    let len = u64::from_le_bytes(bytes.get(place..place + 8)?.try_into().ok()?) as usize;
    let mut changed = bytes.to_vec();
    changed.get_mut(place + 8..place + 8 + len)?.fill(b' ');
    Some(changed)
}

/// The full GGUF key that ends in `suffix`.
fn gguf_key(bytes: &[u8], suffix: &str) -> Option<String> {
    let container = gguf::parse(bytes).ok()?;
    match &container.metadata {
        apr_engine::format::Metadata::Gguf(pairs) => {
            pairs.iter().map(|(key, _)| *key).find(|key| key.ends_with(suffix)).map(str::to_owned)
        }
        _ => None,
    }
}

/// Changes a JSON side file.
pub(super) fn edit_json(
    bytes: &[u8],
    edit: impl FnOnce(&mut Map<String, Json>),
) -> Option<Vec<u8>> {
    let mut value: Json = serde_json::from_slice(bytes).ok()?;
    let before = value.clone();
    edit(value.as_object_mut()?);
    (value != before).then(|| serde_json::to_vec_pretty(&value).ok())?
}

/// Changes the JSON header of a SafeTensors file; the data stays.
pub(super) fn edit_safetensors_header(
    bytes: &[u8],
    edit: impl FnOnce(&mut Map<String, Json>),
) -> Option<Vec<u8>> {
    let len = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?) as usize;
    let header = edit_json(bytes.get(8..8 + len)?, edit)?;
    let mut changed = (header.len() as u64).to_le_bytes().to_vec();
    changed.extend_from_slice(&header);
    changed.extend_from_slice(&bytes[8 + len..]);
    Some(changed)
}

/// Changes the metadata of an APR file; index and data move behind it.
pub(super) fn edit_apr_metadata(
    bytes: &[u8],
    edit: impl FnOnce(&mut Map<String, Json>),
) -> Option<Vec<u8>> {
    if !bytes.starts_with(b"APR\0") {
        return None;
    }
    let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let size = u32_at(20)? as usize;
    let (index, data) = (u64_at(24)? as usize, u64_at(32)? as usize);
    let mut metadata = edit_json(bytes.get(APR_HEADER_BYTES..APR_HEADER_BYTES + size)?, edit)?;
    let new_size = metadata.len() as u32;
    metadata.resize(metadata.len().next_multiple_of(64), 0);

    let mut changed = bytes[..APR_HEADER_BYTES].to_vec();
    let new_index = (APR_HEADER_BYTES + metadata.len()) as u64;
    let new_data = new_index + (data - index) as u64;
    changed[20..24].copy_from_slice(&new_size.to_le_bytes());
    changed[24..32].copy_from_slice(&new_index.to_le_bytes());
    changed[32..40].copy_from_slice(&new_data.to_le_bytes());
    changed.extend_from_slice(&metadata);
    changed.extend_from_slice(bytes.get(index..)?);
    Some(reseal(changed))
}
