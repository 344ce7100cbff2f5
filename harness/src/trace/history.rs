//! The execution history: names and types of `GetExecutionHistory` of AWS Step Functions (API model of 2016-11-23).
//!
//! Only the members that a run of a model needs are here. `input` and `output` are strings that hold JSON, as that
//! interface has it; what they hold is a [`Payload`].

use std::io;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::payload::Payload;

/// Longest `input` and `output`, in characters.
pub const TEXT_MAX: usize = 262_144;
/// Room for the text of a layer of a small model, in bytes: most texts are never moved while they grow.
const TEXT_USUAL: usize = 16_384;
/// Longest `error`, in characters.
const ERROR_MAX: usize = 256;
/// Longest `cause`, in characters.
const CAUSE_MAX: usize = 32_768;

/// A whole history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct History {
    /// In the order of their ids.
    pub events: Vec<HistoryEvent>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EventType {
    /// The run began.
    ExecutionStarted,
    /// The run ended as it should.
    ExecutionSucceeded,
    /// The run ended with an error.
    ExecutionFailed,
    /// The caller broke off.
    ExecutionAborted,
    /// A step began.
    TaskStateEntered,
    /// A step ended.
    TaskStateExited,
    /// The layers begin.
    MapStateEntered,
    /// The layers began.
    MapStateStarted,
    /// The layers ended as they should.
    MapStateSucceeded,
    /// A layer broke.
    MapStateFailed,
    /// The layers are left.
    MapStateExited,
    /// A layer began.
    MapIterationStarted,
    /// A layer ended as it should.
    MapIterationSucceeded,
    /// A layer broke.
    MapIterationFailed,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HistoryEvent {
    /// ISO 8601, UTC, milliseconds.
    pub timestamp: String,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// 1, 2, 3 … without holes.
    pub id: u64,
    /// Of the event that led here: what an exit leaves, otherwise the one before; 0 for the first.
    pub previous_event_id: u64,
    /// Of [`EventType::ExecutionStarted`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_started_event_details: Option<Input>,
    /// Of [`EventType::ExecutionSucceeded`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_succeeded_event_details: Option<Output>,
    /// Of [`EventType::ExecutionFailed`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_failed_event_details: Option<Cause>,
    /// Of [`EventType::ExecutionAborted`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_aborted_event_details: Option<Cause>,
    /// Of every `…StateEntered`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_entered_event_details: Option<Entered>,
    /// Of every `…StateExited`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_exited_event_details: Option<Exited>,
    /// Of [`EventType::MapStateStarted`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map_state_started_event_details: Option<Length>,
    /// Of [`EventType::MapIterationStarted`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map_iteration_started_event_details: Option<Iteration>,
    /// Of [`EventType::MapIterationSucceeded`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map_iteration_succeeded_event_details: Option<Iteration>,
    /// Of [`EventType::MapIterationFailed`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map_iteration_failed_event_details: Option<Iteration>,
}

/// Whether a text was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cut {
    /// The payload was too long and left out.
    pub truncated: bool,
}

/// What a run was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Input {
    /// JSON of a payload.
    pub input: String,
    /// Whether it was cut.
    pub input_details: Cut,
}

/// What a run gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Output {
    /// JSON of a payload.
    pub output: String,
    /// Whether it was cut.
    pub output_details: Cut,
}

/// Why a run ended early.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cause {
    /// Stable code.
    pub error: String,
    /// The whole message.
    pub cause: String,
}

/// A step that begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Entered {
    /// The step, 1 to 80 characters.
    pub name: String,
    /// JSON of a payload.
    pub input: String,
    /// Whether it was cut.
    pub input_details: Cut,
}

/// A step that ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Exited {
    /// The step.
    pub name: String,
    /// JSON of a payload.
    pub output: String,
    /// Whether it was cut.
    pub output_details: Cut,
}

/// How many layers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Length {
    /// Layers of the model, traced or not.
    pub length: usize,
}

/// A layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Iteration {
    /// The map it belongs to.
    pub name: String,
    /// The layer.
    pub index: usize,
}

/// What an event tells beyond its kind.
#[derive(Debug)]
pub(super) enum Detail {
    Nothing,
    Starts(Payload),
    Succeeds(Payload),
    Fails(Cause),
    Aborts(Cause),
    Enters(String, Payload),
    Exits(String, Payload),
    Length(usize),
    Iteration(Iteration),
}

impl Detail {
    pub(super) fn fails(error: &str, cause: &str) -> Self {
        Self::Fails(because(error, cause))
    }

    pub(super) fn aborts(error: &str, cause: &str) -> Self {
        Self::Aborts(because(error, cause))
    }
}

/// Takes events in their order.
pub type Sink<'s> = Box<dyn FnMut(HistoryEvent) -> io::Result<()> + Send + 's>;
/// Tells milliseconds since 1970.
pub type Clock = fn() -> u64;

/// Numbers, dates and links events on their way to the sink.
pub(super) struct Recorder<'s> {
    sink: Sink<'s>,
    /// When the next events happened, in milliseconds since 1970.
    now: u64,
    last: u64,
    /// Ids of what was entered and not left.
    open: Vec<u64>,
    failed: Option<io::Error>,
}

impl<'s> Recorder<'s> {
    pub(super) fn new(sink: Sink<'s>) -> Self {
        Self { sink, now: 0, last: 0, open: Vec::new(), failed: None }
    }

    /// The next events happened at `now`, in milliseconds since 1970.
    pub(super) fn at(&mut self, now: u64) {
        self.now = now;
    }

    /// The first error of the sink; nothing is written after it.
    pub(super) fn failure(&mut self) -> Option<io::Error> {
        self.failed.take()
    }

    /// Something begins; the next [`Recorder::leave`] that has no other to leave leads back to it.
    pub(super) fn enter(&mut self, kind: EventType, detail: Detail) {
        self.write(kind, self.last, detail);
        self.open.push(self.last);
    }

    /// Something that was entered ends.
    pub(super) fn leave(&mut self, kind: EventType, detail: Detail) {
        let entry = self.open.pop().unwrap_or(self.last);
        self.write(kind, entry, detail);
    }

    /// Something happens that is neither entered nor left.
    pub(super) fn note(&mut self, kind: EventType, detail: Detail) {
        self.write(kind, self.last, detail);
    }

    /// A task as a whole.
    pub(super) fn task(&mut self, name: &str, input: Payload, output: Payload) {
        self.enter(EventType::TaskStateEntered, Detail::Enters(name.to_owned(), input));
        self.leave(EventType::TaskStateExited, Detail::Exits(name.to_owned(), output));
    }

    fn write(&mut self, kind: EventType, previous: u64, detail: Detail) {
        if self.failed.is_some() {
            return;
        }
        self.last += 1;
        let event = HistoryEvent::telling(kind, self.last, previous, self.now, detail);
        self.failed = (self.sink)(event).err();
    }
}

/// ISO 8601 with milliseconds.
fn timestamp(milliseconds: u64) -> String {
    let seconds = crate::provenance::rfc3339(milliseconds / 1000);
    format!("{}.{:03}Z", seconds.trim_end_matches('Z'), milliseconds % 1000)
}

impl HistoryEvent {
    /// An event that tells `detail`.
    fn telling(kind: EventType, id: u64, previous: u64, at: u64, detail: Detail) -> Self {
        let mut event = Self::new(kind, id, previous, &timestamp(at));
        match detail {
            Detail::Nothing => {}
            Detail::Starts(input) => {
                let (input, input_details) = text(&input);
                event.execution_started_event_details = Some(Input { input, input_details });
            }
            Detail::Succeeds(output) => {
                let (output, output_details) = text(&output);
                event.execution_succeeded_event_details = Some(Output { output, output_details });
            }
            Detail::Fails(cause) => event.execution_failed_event_details = Some(cause),
            Detail::Aborts(cause) => event.execution_aborted_event_details = Some(cause),
            Detail::Enters(name, input) => {
                let (input, input_details) = text(&input);
                event.state_entered_event_details = Some(Entered { name, input, input_details });
            }
            Detail::Exits(name, output) => {
                let (output, output_details) = text(&output);
                event.state_exited_event_details = Some(Exited { name, output, output_details });
            }
            Detail::Length(length) => {
                event.map_state_started_event_details = Some(Length { length });
            }
            Detail::Iteration(iteration) => {
                let place = match kind {
                    EventType::MapIterationSucceeded => {
                        &mut event.map_iteration_succeeded_event_details
                    }
                    EventType::MapIterationFailed => &mut event.map_iteration_failed_event_details,
                    _ => &mut event.map_iteration_started_event_details,
                };
                *place = Some(iteration);
            }
        }
        event
    }

    /// An event without details.
    pub fn new(kind: EventType, id: u64, previous_event_id: u64, timestamp: &str) -> Self {
        Self {
            timestamp: timestamp.to_owned(),
            kind,
            id,
            previous_event_id,
            execution_started_event_details: None,
            execution_succeeded_event_details: None,
            execution_failed_event_details: None,
            execution_aborted_event_details: None,
            state_entered_event_details: None,
            state_exited_event_details: None,
            map_state_started_event_details: None,
            map_iteration_started_event_details: None,
            map_iteration_succeeded_event_details: None,
            map_iteration_failed_event_details: None,
        }
    }

    /// Name of the step that is entered or left.
    pub fn name(&self) -> Option<&str> {
        let entered = self.state_entered_event_details.as_ref().map(|it| it.name.as_str());
        entered.or(self.state_exited_event_details.as_ref().map(|it| it.name.as_str()))
    }

    /// The JSON of its input and of its output.
    pub fn texts(&self) -> Vec<&str> {
        let inputs = [
            self.execution_started_event_details.as_ref().map(|it| &it.input),
            self.state_entered_event_details.as_ref().map(|it| &it.input),
        ];
        let outputs = [
            self.state_exited_event_details.as_ref().map(|it| &it.output),
            self.execution_succeeded_event_details.as_ref().map(|it| &it.output),
        ];
        inputs.into_iter().chain(outputs).flatten().map(String::as_str).collect()
    }
}

fn because(error: &str, cause: &str) -> Cause {
    let cut = |text: &str, most| text.chars().take(most).collect();
    Cause { error: cut(error, ERROR_MAX), cause: cut(cause, CAUSE_MAX) }
}

/// The JSON of a payload. One that is too long gives way to a note of its length: half a JSON text is none.
fn text(payload: &Payload) -> (String, Cut) {
    let whole = json(payload);
    // No text has more characters than bytes.
    if whole.len() <= TEXT_MAX || whole.chars().count() <= TEXT_MAX {
        return (whole, Cut { truncated: false });
    }
    let characters = whole.chars().count();
    (json(&Payload::LeftOut { characters }), Cut { truncated: true })
}

fn json(payload: &Payload) -> String {
    let mut bytes = Vec::with_capacity(TEXT_USUAL);
    match serde_json::to_writer(&mut bytes, payload) {
        Ok(()) => String::from_utf8(bytes).unwrap_or_default(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_lead_back_to_their_entries_and_ids_have_no_holes() {
        let mut events = Vec::new();
        let sink: Sink<'_> = Box::new(|event| {
            events.push(event);
            Ok(())
        });
        let mut recorder = Recorder::new(sink);
        recorder.at(1_700_000_000_042);
        recorder.enter(EventType::MapStateEntered, Detail::Nothing);
        recorder.note(EventType::MapStateStarted, Detail::Nothing);
        let left_out = || Payload::LeftOut { characters: 1 };
        recorder.task("x", left_out(), left_out());
        recorder.leave(EventType::MapStateExited, Detail::Nothing);
        drop(recorder);
        let links: Vec<_> = events.iter().map(|e| (e.id, e.previous_event_id)).collect();
        assert_eq!(links, [(1, 0), (2, 1), (3, 2), (4, 3), (5, 1)]);
        assert_eq!(events[0].timestamp, "2023-11-14T22:13:20.042Z");
    }

    #[test]
    fn a_sink_that_fails_is_not_written_to_again() {
        let mut calls = 0;
        let sink: Sink<'_> = Box::new(|_| {
            calls += 1;
            Err(io::Error::other("full"))
        });
        let mut recorder = Recorder::new(sink);
        recorder.note(EventType::ExecutionStarted, Detail::Nothing);
        recorder.note(EventType::ExecutionStarted, Detail::Nothing);
        assert_eq!(recorder.failure().unwrap().to_string(), "full");
        drop(recorder);
        assert_eq!(calls, 1);
    }
}
