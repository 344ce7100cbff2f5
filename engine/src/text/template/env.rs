//! The environment chat templates are written for: that of Hugging Face's `apply_chat_template`.
//!
//! Filters, tests, functions and string methods are listed one by one; what is not listed does not exist.
//! All of them pay from the [`Budget`].

use std::sync::{Arc, Mutex};

use minijinja::value::{Kwargs, Rest, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value, filters, functions, tests};
use minijinja_contrib::pycompat;

use super::date::Date;
use super::guard::{Budget, out_of_budget};
use super::limits::RESERVED;
use super::tojson::tojson;

/// Steps a rendering may take besides those for its messages; about 0.1 s.
const STEPS: u64 = 200_000;
/// Further steps for each message; real templates take about a hundred.
const STEPS_PER_MESSAGE: u64 = 2_000;
/// Most numbers `range` gives.
const RANGE_MAX: i64 = 10_000;
/// Widest padding in `format` and `indent`.
const WIDTH_MAX: usize = 256;

/// Where `raise_exception` leaves its message.
pub(super) type Raised = Arc<Mutex<Option<String>>>;

/// Builds the environment of one rendering.
pub(super) fn environment(
    budget: &Arc<Budget>,
    raised: &Raised,
    date: Option<Date>,
    messages: usize,
) -> Environment<'static> {
    let mut env = Environment::empty();
    env.set_fuel(Some(STEPS + STEPS_PER_MESSAGE * messages as u64));
    env.set_recursion_limit(100);
    add_filters(&mut env, budget);
    add_tests(&mut env);
    add_operators(&mut env, budget);
    add_functions(&mut env, budget, raised, date);
    let pay = Arc::clone(budget);
    env.set_unknown_method_callback(move |state, value, method, args| {
        method_call(&pay, state, value, method, args)
    });
    let pay = Arc::clone(budget);
    env.set_formatter(move |out: &mut Output<'_>, _state: &mut State<'_, '_>, value: &Value| {
        match value.as_str() {
            Some(text) => {
                pay.string(text.len() as u64)?;
                out.write_str(text).map_err(Error::from)
            }
            None => out.write_str(&pay.text(value)?).map_err(Error::from),
        }
    });
    env
}

/// The functions that [`super::rewrite`] puts in the place of operators.
fn add_operators(env: &mut Environment<'static>, budget: &Arc<Budget>) {
    type Binary = fn(&Budget, &Value, &Value) -> Result<Value, Error>;
    let binary: [(&str, Binary); 3] =
        [("add", Budget::add), ("concat", Budget::concat), ("mul", Budget::mul)];
    for (name, operation) in binary {
        let pay = Arc::clone(budget);
        let call = move |left: &Value, right: &Value| operation(&pay, left, right);
        env.add_function(format!("{RESERVED}{name}"), call);
    }
    let pay = Arc::clone(budget);
    let slice = move |value: &Value, start: &Value, stop: &Value, step: &Value| {
        pay.slice(value, [start, stop, step])
    };
    env.add_function(format!("{RESERVED}slice"), slice);
    let pay = Arc::clone(budget);
    env.add_function(format!("{RESERVED}own"), move |value: Value| pay.own(value));
    let pay = Arc::clone(budget);
    env.add_function(format!("{RESERVED}store"), move |value: Value| pay.store(value));
    let pay = Arc::clone(budget);
    let look = move |value: Value| pay.look(&value).map(|_| value);
    env.add_function(format!("{RESERVED}look"), look);
    let pay = Arc::clone(budget);
    env.add_function(format!("{RESERVED}each"), move |value: Value| pay.each(value));
    let pay = Arc::clone(budget);
    let touch = move |value: Value| pay.touch(&value).map(|()| value);
    env.add_function(format!("{RESERVED}touch"), touch);
}

fn add_functions(
    env: &mut Environment<'static>,
    budget: &Arc<Budget>,
    raised: &Raised,
    date: Option<Date>,
) {
    let cell = Arc::clone(raised);
    env.add_function("raise_exception", move |message: String| -> Result<Value, Error> {
        if let Ok(mut cell) = cell.lock() {
            *cell = Some(message.clone());
        }
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    if let Some(date) = date {
        let pay = Arc::clone(budget);
        env.add_function("strftime_now", move |format: &str| {
            pay.string(format.len() as u64 * 16)?;
            Ok::<_, Error>(date.format(format))
        });
    }
    let range = |start: i64, stop: Option<i64>, step: Option<i64>| -> Result<Value, Error> {
        let (start, stop, step) =
            (stop.map_or(0, |_| start), stop.unwrap_or(start), step.unwrap_or(1));
        let span = (i128::from(stop) - i128::from(start)) * i128::from(step.signum());
        if step == 0 {
            return Err(Error::new(ErrorKind::InvalidOperation, "range step is zero"));
        }
        if span / i128::from(step).abs() > i128::from(RANGE_MAX) {
            return Err(out_of_budget("range has too many elements"));
        }
        let inside = |at: &i64| if step > 0 { *at < stop } else { *at > stop };
        let numbers = std::iter::successors(Some(start), |at| at.checked_add(step));
        Ok(Value::from(numbers.take_while(inside).collect::<Vec<_>>()))
    };
    env.add_function("range", range);
    // A namespace or dict is made by the engine's own function, from values without namespaces.
    for (name, make) in [
        ("namespace", Value::from_function(functions::namespace)),
        ("dict", Value::from_function(functions::dict)),
    ] {
        let pay = Arc::clone(budget);
        let call = move |state: &mut State<'_, '_>, args: Rest<Value>, named: Kwargs| {
            let args = all_args(args, named).into_iter().map(|arg| pay.store(arg));
            make.call(state, &args.collect::<Result<Vec<_>, _>>()?)
        };
        env.add_function(name, call);
    }
}

fn add_tests(env: &mut Environment<'static>) {
    env.add_test("undefined", tests::is_undefined);
    env.add_test("defined", tests::is_defined);
    env.add_test("none", tests::is_none);
    env.add_test("boolean", tests::is_boolean);
    env.add_test("odd", tests::is_odd);
    env.add_test("even", tests::is_even);
    env.add_test("divisibleby", tests::is_divisibleby);
    env.add_test("number", tests::is_number);
    env.add_test("integer", tests::is_integer);
    env.add_test("float", tests::is_float);
    env.add_test("string", tests::is_string);
    // In Python strings and mappings are sequences, and strings are iterable, too.
    env.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map)
    });
    env.add_test("iterable", |value: &Value| value.try_iter().is_ok() && !value.is_none());
    env.add_test("mapping", tests::is_mapping);
    env.add_test("callable", |value: &Value| {
        value.as_object().is_some() && value.kind() == ValueKind::Plain
    });
    env.add_test("lower", tests::is_lower);
    env.add_test("upper", tests::is_upper);
    env.add_test("sameas", tests::is_sameas);
    env.add_test("true", tests::is_true);
    env.add_test("false", tests::is_false);
    for name in ["eq", "equalto", "=="] {
        env.add_test(name, tests::is_eq);
    }
    for name in ["ne", "!="] {
        env.add_test(name, tests::is_ne);
    }
    for name in ["lt", "lessthan", "<"] {
        env.add_test(name, tests::is_lt);
    }
    for name in ["gt", "greaterthan", ">"] {
        env.add_test(name, tests::is_gt);
    }
    for name in ["le", "<="] {
        env.add_test(name, tests::is_le);
    }
    for name in ["ge", ">="] {
        env.add_test(name, tests::is_ge);
    }
    env.add_test("in", tests::is_in);
}

/// Positional and named arguments as the engine passes them on.
fn all_args(args: Rest<Value>, named: Kwargs) -> Vec<Value> {
    let mut all = args.0;
    if named.args().next().is_some() {
        all.push(Value::from(named));
    }
    all
}

/// Registers `filter` so that its arguments and its result are paid for. `cheap` filters look at no more
/// than the outermost layer of their arguments.
fn add_filter(
    env: &mut Environment<'static>,
    budget: &Arc<Budget>,
    name: &'static str,
    cheap: bool,
    filter: Value,
) {
    let pay = Arc::clone(budget);
    env.add_filter(name, move |state: &mut State<'_, '_>, args: Rest<Value>, named: Kwargs| {
        let args = all_args(args, named);
        for arg in &args {
            if cheap { pay.touch(arg)? } else { pay.look(arg).map(|_| ())? }
        }
        let result = filter.call(state, &args)?;
        if cheap { Ok(result) } else { pay.own(result) }
    });
}

fn add_filters(env: &mut Environment<'static>, budget: &Arc<Budget>) {
    let cheap = [
        ("length", Value::from_function(filters::length)),
        ("count", Value::from_function(filters::length)),
        ("default", Value::from_function(filters::default)),
        ("d", Value::from_function(filters::default)),
        ("first", Value::from_function(filters::first)),
        ("last", Value::from_function(filters::last)),
        ("attr", Value::from_function(filters::attr)),
        ("safe", Value::from_function(|value: Value| value)),
        ("abs", Value::from_function(filters::abs)),
        ("int", Value::from_function(filters::int)),
        ("float", Value::from_function(filters::float)),
        ("round", Value::from_function(filters::round)),
    ];
    let dear = [
        ("lower", Value::from_function(filters::lower)),
        ("upper", Value::from_function(filters::upper)),
        ("title", Value::from_function(filters::title)),
        ("capitalize", Value::from_function(filters::capitalize)),
        ("trim", Value::from_function(filters::trim)),
        ("split", Value::from_function(filters::split)),
        ("dictsort", Value::from_function(filters::dictsort)),
        ("items", Value::from_function(filters::items)),
        ("reverse", Value::from_function(filters::reverse)),
        ("min", Value::from_function(filters::min)),
        ("max", Value::from_function(filters::max)),
        ("sort", Value::from_function(filters::sort)),
        ("list", Value::from_function(filters::list)),
        ("bool", Value::from_function(filters::bool)),
        ("sum", Value::from_function(filters::sum)),
        ("select", Value::from_function(filters::select)),
        ("reject", Value::from_function(filters::reject)),
        ("selectattr", Value::from_function(filters::selectattr)),
        ("rejectattr", Value::from_function(filters::rejectattr)),
        ("map", Value::from_function(filters::map)),
        ("groupby", Value::from_function(filters::groupby)),
        ("unique", Value::from_function(filters::unique)),
    ];
    for (name, filter) in cheap {
        add_filter(env, budget, name, true, filter);
    }
    for (name, filter) in dear {
        add_filter(env, budget, name, false, filter);
    }
    add_text_filters(env, budget);
}

/// The filters whose result can be much larger than their arguments: written here, paid in advance.
fn add_text_filters(env: &mut Environment<'static>, budget: &Arc<Budget>) {
    let pay = Arc::clone(budget);
    env.add_filter("tojson", move |value: &Value, options: Kwargs| tojson(&pay, value, &options));
    let pay = Arc::clone(budget);
    env.add_filter("string", move |value: &Value| pay.text(value));
    let pay = Arc::clone(budget);
    env.add_filter("join", move |items: &Value, separator: Option<&str>, attribute: Kwargs| {
        let attribute: Option<String> = attribute.get("attribute")?;
        let separator = separator.unwrap_or_default();
        let Some(attribute) = attribute else { return pay.join(items, separator) };
        let mut values = Vec::new();
        for item in items.try_iter()?.checked() {
            pay.spend(64)?;
            values.push(item?.get_attr(&attribute)?);
        }
        pay.join(&Value::from(values), separator)
    });
    let pay = Arc::clone(budget);
    let replace = move |text: &Value, old: &str, new: &str, count: Option<usize>| {
        pay.replace(&pay.text(text)?, old, new, count)
    };
    env.add_filter("replace", replace);
    let pay = Arc::clone(budget);
    env.add_filter("indent", move |text: &Value, width: Option<usize>, options: Kwargs| {
        let width = width.or(options.get("width")?).unwrap_or(4);
        let first = options.get::<Option<bool>>("first")?.unwrap_or(false);
        let blank = options.get::<Option<bool>>("blank")?.unwrap_or(false);
        options.assert_all_used()?;
        indent(&pay, &pay.text(text)?, width, first, blank)
    });
    let pay = Arc::clone(budget);
    env.add_filter("format", move |state: &mut State<'_, '_>, format: &str, args: Rest<Value>| {
        check_widths(format)?;
        for arg in args.iter() {
            pay.text(arg)?;
        }
        let args: Vec<Value> = std::iter::once(Value::from(format)).chain(args.0).collect();
        pay.own(Value::from_function(filters::format).call(state, &args)?)
    });
}

fn indent(
    budget: &Budget,
    text: &str,
    width: usize,
    first: bool,
    blank: bool,
) -> Result<Value, Error> {
    if width > WIDTH_MAX {
        return Err(out_of_budget("indent is wider than allowed"));
    }
    let lines = text.split('\n').count();
    budget.string((text.len() + lines * width) as u64)?;
    let prefix = " ".repeat(width);
    let mut out = String::new();
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            out.push('\n');
        }
        let wanted = if index == 0 { first } else { blank || !line.is_empty() };
        if wanted {
            out.push_str(&prefix);
        }
        out.push_str(line);
    }
    Ok(Value::from(out))
}

/// Refuses formats with a number above the widest padding, or with a width out of the arguments.
fn check_widths(format: &str) -> Result<(), Error> {
    let too_wide = format.split(|character: char| !character.is_ascii_digit()).any(|digits| {
        digits.len() > 4 || digits.parse().is_ok_and(|width: usize| width > WIDTH_MAX)
    });
    if too_wide || format.contains('*') {
        return Err(out_of_budget("format pads wider than allowed"));
    }
    Ok(())
}

/// A method of Python's strings, lists and dictionaries.
fn method_call(
    budget: &Budget,
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    budget.touch(value)?;
    for arg in args {
        budget.look(arg)?;
    }
    let text = value.as_str();
    match (method, text) {
        ("join", Some(separator)) => {
            let (items,): (&Value,) = from_args(args)?;
            budget.join(items, separator)
        }
        ("replace", Some(text)) => {
            let (old, new, count): (&str, &str, Option<i64>) = from_args(args)?;
            let count = count.and_then(|count| usize::try_from(count).ok());
            budget.replace(text, old, new, count)
        }
        ("format", Some(format)) => {
            check_widths(format)?;
            // A format can name an argument as often as it has braces.
            let widest = args
                .iter()
                .map(|arg| budget.look(arg))
                .try_fold(0, |most, cost| cost.map(|cost| most.max(cost)))?;
            let places = format.matches('{').count() as u64;
            budget.string(format.len() as u64 + places.saturating_mul(widest))?;
            budget.own(pycompat::unknown_method_callback(state, value, method, args)?)
        }
        ("removeprefix", Some(text)) => {
            let (prefix,): (&str,) = from_args(args)?;
            budget.own(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        ("removesuffix", Some(text)) => {
            let (suffix,): (&str,) = from_args(args)?;
            budget.own(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        ("rsplit", Some(text)) => {
            let (separator, most): (&str, Option<usize>) = from_args(args)?;
            budget.spend(text.len() as u64 * 32)?;
            if separator.is_empty() {
                return Err(Error::new(ErrorKind::InvalidOperation, "empty separator"));
            }
            let most = most.map_or(usize::MAX, |most| most.saturating_add(1));
            let mut parts: Vec<Value> = text.rsplitn(most, separator).map(Value::from).collect();
            parts.reverse();
            budget.own(Value::from(parts))
        }
        ("split" | "splitlines", Some(text)) => {
            budget.spend(text.len() as u64 * 32)?;
            budget.own(pycompat::unknown_method_callback(state, value, method, args)?)
        }
        _ => {
            if text.is_none() {
                budget.look(value)?;
            }
            budget.own(pycompat::unknown_method_callback(state, value, method, args)?)
        }
    }
}
