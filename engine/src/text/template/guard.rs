//! The budget of one rendering, and the operations that can grow a value.
//!
//! Every byte an operation makes or inspects is paid from one budget, before the operation where its
//! result can be much larger than its operands. Values can only be composed through [`Budget::own`], which
//! measures them with shared parts counted each time, so that comparing or printing a value costs no more
//! than was measured. Namespaces never contain namespaces: a value cannot contain itself.

use std::sync::atomic::{AtomicU64, Ordering};

use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, ErrorKind, Value};

/// What one node of a composite value costs, besides the bytes of its strings.
const NODE_COST: u64 = 16;
/// Most nodes of a composite value, shared parts counted each time.
const NODES_MAX: u64 = 1 << 17;
/// Deepest composite value.
const DEPTH_MAX: usize = 40;

type OpResult = Result<Value, Error>;

/// What one rendering may still spend, in bytes.
#[derive(Debug)]
pub(super) struct Budget {
    left: AtomicU64,
    /// Longest single string.
    string_max: u64,
}

/// Ends the rendering because of a limit.
pub(super) fn out_of_budget(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::OutOfFuel, what)
}

fn invalid(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

impl Budget {
    /// A budget of `total` bytes in which no string may exceed `string_max`.
    pub(super) fn new(total: u64, string_max: u64) -> Self {
        Self { left: AtomicU64::new(total), string_max }
    }

    /// Pays `cost`, or ends the rendering.
    pub(super) fn spend(&self, cost: u64) -> Result<(), Error> {
        let spent = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(cost));
        spent.map(|_| ()).map_err(|_| out_of_budget("the template uses more memory than allowed"))
    }

    /// Refuses a string of `len` bytes that is longer than allowed.
    fn fits(&self, len: u64) -> Result<(), Error> {
        if len > self.string_max {
            return Err(out_of_budget("the template makes a longer string than allowed"));
        }
        Ok(())
    }

    /// Pays for a string of `len` bytes that is about to be made.
    pub(super) fn string(&self, len: u64) -> Result<(), Error> {
        self.fits(len)?;
        self.spend(len)
    }

    /// Bytes and nodes of `value`, shared parts counted each time; paid while counting. Fails on values
    /// that are too large or deep, and, where `plain`, on a namespace inside.
    fn measure(&self, value: &Value, plain: bool) -> Result<u64, Error> {
        let mut total = Measure { budget: self, bytes: 0, nodes: 0, plain };
        total.walk(value, 0)?;
        Ok(total.bytes + NODE_COST * total.nodes)
    }

    /// Pays for looking at all of `value`.
    pub(super) fn look(&self, value: &Value) -> Result<u64, Error> {
        self.measure(value, false)
    }

    /// Pays for looking at the outermost layer of `value`.
    pub(super) fn touch(&self, value: &Value) -> Result<(), Error> {
        self.spend(NODE_COST + value.as_str().map_or(0, |text| text.len() as u64))
    }

    /// What a loop runs over. Python refuses to iterate over `None` and numbers; over what is undefined
    /// it runs zero times.
    pub(super) fn each(&self, value: Value) -> OpResult {
        if matches!(value.kind(), ValueKind::None | ValueKind::Bool | ValueKind::Number) {
            return Err(invalid(format!("a {} cannot be iterated over", value.kind())));
        }
        self.look(&value)?;
        Ok(value)
    }

    /// Takes a new value into the template: measured, and lazy sequences made real, because chains of
    /// lazy ones would recurse.
    pub(super) fn own(&self, value: Value) -> OpResult {
        if let Some(text) = value.as_str() {
            self.string(text.len() as u64)?;
            return Ok(value);
        }
        if value.as_object().is_none() {
            return Ok(value);
        }
        let value = if value.kind() == ValueKind::Iterable { self.collect(&value)? } else { value };
        self.measure(&value, false)?;
        Ok(value)
    }

    /// Takes a value into a namespace.
    pub(super) fn store(&self, value: Value) -> OpResult {
        self.measure(&value, true)?;
        Ok(value)
    }

    fn collect(&self, value: &Value) -> OpResult {
        let mut items = Vec::new();
        for item in value.try_iter()?.checked() {
            self.spend(NODE_COST * 2)?;
            items.push(item?);
        }
        Ok(Value::from(items))
    }

    /// `a + b`: numbers, strings, sequences.
    pub(super) fn add(&self, left: &Value, right: &Value) -> OpResult {
        if let (Some(a), Some(b)) = (left.as_str(), right.as_str()) {
            return self.join_two(a, b);
        }
        let sequence = |value: &Value| matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable);
        if sequence(left) && sequence(right) && left.is_tuple() == right.is_tuple() {
            let len = left.len().unwrap_or(0) as u64 + right.len().unwrap_or(0) as u64;
            fits_nodes(len)?;
            let mut items = Vec::with_capacity(len as usize);
            for item in left.try_iter()?.checked().chain(right.try_iter()?.checked()) {
                self.spend(NODE_COST * 2)?;
                items.push(item?);
            }
            let sum =
                if left.is_tuple() { Value::from(Tuple::from(items)) } else { Value::from(items) };
            return self.own(sum);
        }
        if let (Some(a), Some(b)) = (as_int(left), as_int(right)) {
            return a.checked_add(b).map(int_value).ok_or_else(|| invalid("integer overflow"));
        }
        match (as_number(left), as_number(right)) {
            (Some(a), Some(b)) => Ok(Value::from(a + b)),
            _ => Err(invalid(format!("cannot add {} and {}", left.kind(), right.kind()))),
        }
    }

    fn join_two(&self, a: &str, b: &str) -> OpResult {
        self.string(a.len() as u64 + b.len() as u64)?;
        Ok(Value::from([a, b].concat()))
    }

    /// `a ~ b`: both as text.
    pub(super) fn concat(&self, left: &Value, right: &Value) -> OpResult {
        self.join_two(&self.text(left)?, &self.text(right)?)
    }

    /// `a * b`: numbers, repeated strings and sequences.
    pub(super) fn mul(&self, left: &Value, right: &Value) -> OpResult {
        if let (Some(a), Some(b)) = (as_int(left), as_int(right)) {
            return a.checked_mul(b).map(int_value).ok_or_else(|| invalid("integer overflow"));
        }
        if let (Some(a), Some(b)) = (as_number(left), as_number(right)) {
            return Ok(Value::from(a * b));
        }
        let (value, count) = match (as_int(left), as_int(right)) {
            (None, Some(count)) => (left, count),
            (Some(count), None) => (right, count),
            _ => return Err(invalid("can only multiply with a number")),
        };
        let count = u64::try_from(count).unwrap_or(0);
        if let Some(text) = value.as_str() {
            self.string(count.saturating_mul(text.len() as u64))?;
            return Ok(Value::from(text.repeat(count as usize)));
        }
        let items: Vec<Value> = value.try_iter()?.collect();
        let len = count.saturating_mul(items.len() as u64);
        fits_nodes(len)?;
        self.spend(len.saturating_mul(NODE_COST * 2))?;
        let repeated = std::iter::repeat_n(items, count as usize).flatten();
        self.own(Value::from(repeated.collect::<Vec<_>>()))
    }

    /// `value[start:stop:step]` of a string or sequence, with Python's rules.
    pub(super) fn slice(&self, value: &Value, bounds: [&Value; 3]) -> OpResult {
        let [start, stop, step] = bounds.map(|bound| match bound.kind() {
            ValueKind::None => Ok(None),
            _ => i64::try_from(bound.clone()).map(Some),
        });
        let step = step?.unwrap_or(1);
        if step == 0 {
            return Err(invalid("slice step is zero"));
        }
        if let Some(text) = value.as_str() {
            self.spend(text.len() as u64 * 4)?;
            let characters: Vec<char> = text.chars().collect();
            let indices = slice_indices(characters.len(), start?, stop?, step);
            return self.own(Value::from(indices.map(|at| characters[at]).collect::<String>()));
        }
        if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
            return Err(invalid(format!("a {} cannot be sliced", value.kind())));
        }
        self.look(value)?;
        let items: Vec<Value> = value.try_iter()?.collect();
        let indices = slice_indices(items.len(), start?, stop?, step);
        let part: Vec<Value> = indices.map(|at| items[at].clone()).collect();
        self.own(if value.is_tuple() { Value::from(Tuple::from(part)) } else { Value::from(part) })
    }

    /// The text of `value` as `{{ value }}` prints it, paid for.
    pub(super) fn text(&self, value: &Value) -> Result<String, Error> {
        if let Some(text) = value.as_str() {
            self.string(text.len() as u64)?;
            return Ok(text.to_owned());
        }
        // Escapes inside a printed list are at most ten bytes for one.
        self.string(self.look(value)?.saturating_mul(2))?;
        let text = value.to_string();
        self.string(text.len() as u64)?;
        Ok(text)
    }

    /// `items` joined by `separator`.
    pub(super) fn join(&self, items: &Value, separator: &str) -> OpResult {
        let mut out = String::new();
        for (index, item) in items.try_iter()?.checked().enumerate() {
            let item = self.text(&item?)?;
            let separator = if index == 0 { "" } else { separator };
            // Growing in place costs what it adds: the separator here, the item in `text`.
            self.spend(separator.len() as u64)?;
            self.fits((out.len() + separator.len() + item.len()) as u64)?;
            out.push_str(separator);
            out.push_str(&item);
        }
        Ok(Value::from(out))
    }

    /// `text` with the first `count` occurrences of `old` (all when `None`) replaced by `new`.
    pub(super) fn replace(
        &self,
        text: &str,
        old: &str,
        new: &str,
        count: Option<usize>,
    ) -> OpResult {
        self.spend(text.len() as u64)?;
        let places =
            if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() };
        let places = places.min(count.unwrap_or(usize::MAX)) as u64;
        self.string(text.len() as u64 + places.saturating_mul(new.len() as u64))?;
        Ok(Value::from(text.replacen(old, new, places as usize)))
    }
}

/// Refuses a composite value of `nodes` or more nodes, before it is made.
fn fits_nodes(nodes: u64) -> Result<(), Error> {
    if nodes >= NODES_MAX {
        return Err(out_of_budget("the template makes a larger value than allowed"));
    }
    Ok(())
}

/// Counts a value, paying as it goes.
struct Measure<'b> {
    budget: &'b Budget,
    bytes: u64,
    nodes: u64,
    plain: bool,
}

impl Measure<'_> {
    fn walk(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let len = value.as_str().map_or(0, |text| text.len() as u64);
        self.nodes += 1;
        self.bytes += len;
        self.budget.spend(NODE_COST)?;
        if self.nodes > NODES_MAX || self.bytes > self.budget.string_max.saturating_mul(4) {
            return Err(out_of_budget("the template makes a larger value than allowed"));
        }
        let Some(object) = value.as_object() else { return Ok(()) };
        if depth > DEPTH_MAX {
            return Err(out_of_budget("the template makes a deeper value than allowed"));
        }
        if self.plain && is_namespace(object.type_name()) {
            return Err(out_of_budget("a namespace cannot contain a namespace"));
        }
        match value.kind() {
            ValueKind::Map => {
                for (key, value) in object.try_iter_pairs().into_iter().flatten() {
                    self.walk(&key, depth + 1)?;
                    self.walk(&value, depth + 1)?;
                }
            }
            ValueKind::Seq | ValueKind::Iterable => {
                for item in object.try_iter().into_iter().flatten() {
                    self.walk(&item, depth + 1)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The indices that `[start:stop:step]` takes from `len` elements.
fn slice_indices(
    len: usize,
    start: Option<i64>,
    stop: Option<i64>,
    step: i64,
) -> impl Iterator<Item = usize> {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let bound = |index: i64| {
        let index = if index < 0 { index.saturating_add(len) } else { index };
        index.clamp(low, high.max(low))
    };
    let first = start.map_or(if step > 0 { low } else { high }, bound);
    let last = stop.map_or(if step > 0 { high } else { low }, bound);
    let inside = move |at: &i64| if step > 0 { *at < last } else { *at > last };
    std::iter::successors(Some(first), move |at| at.checked_add(step))
        .take_while(inside)
        .filter_map(|at| usize::try_from(at).ok())
}

fn is_namespace(type_name: &str) -> bool {
    type_name.rsplit("::").next() == Some("Namespace")
}

fn as_int(value: &Value) -> Option<i128> {
    match value.kind() {
        ValueKind::Number if value.is_integer() => i128::try_from(value.clone()).ok(),
        ValueKind::Bool => Some(i128::from(value.is_true())),
        _ => None,
    }
}

fn as_number(value: &Value) -> Option<f64> {
    match value.kind() {
        ValueKind::Number | ValueKind::Bool => f64::try_from(value.clone()).ok(),
        _ => None,
    }
}

fn int_value(number: i128) -> Value {
    i64::try_from(number).map_or_else(|_| Value::from(number), Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(len: usize, start: Option<i64>, stop: Option<i64>, step: i64) -> Vec<usize> {
        slice_indices(len, start, stop, step).collect()
    }

    #[test]
    fn slices_take_what_python_takes() {
        assert_eq!(slice(4, None, None, 1), [0, 1, 2, 3]);
        assert_eq!(slice(4, None, None, -1), [3, 2, 1, 0]);
        assert_eq!(slice(4, Some(1), Some(-1), 1), [1, 2]);
        assert_eq!(slice(4, Some(-2), None, 1), [2, 3]);
        assert_eq!(slice(4, Some(-1), Some(0), -2), [3, 1]);
        assert_eq!(slice(4, Some(9), Some(-9), -1), [3, 2, 1, 0]);
        assert_eq!(slice(4, Some(3), Some(1), 1), [0; 0]);
        assert_eq!(slice(4, Some(i64::MIN), Some(i64::MAX), i64::MAX), [0]);
        for step in [-2, -1, 1, 2] {
            assert_eq!(slice(0, None, None, step), [0; 0]);
        }
    }
}
