//! What no description of single events can say of a history: ids without holes, links that lead back, and that what is
//! entered is left.

use super::history::{EventType, HistoryEvent};

/// Which part of what an event is.
enum Part {
    Begins(&'static str),
    Ends(&'static str),
    Between,
}

const fn part(kind: EventType) -> Part {
    match kind {
        EventType::ExecutionStarted => Part::Begins("execution"),
        EventType::ExecutionSucceeded
        | EventType::ExecutionFailed
        | EventType::ExecutionAborted => Part::Ends("execution"),
        EventType::TaskStateEntered => Part::Begins("task"),
        EventType::TaskStateExited => Part::Ends("task"),
        EventType::MapStateEntered => Part::Begins("map"),
        EventType::MapStateExited | EventType::MapStateFailed => Part::Ends("map"),
        EventType::MapIterationStarted => Part::Begins("iteration"),
        EventType::MapIterationSucceeded | EventType::MapIterationFailed => Part::Ends("iteration"),
        EventType::MapStateStarted | EventType::MapStateSucceeded => Part::Between,
    }
}

/// Everything that is wrong with the order of `events`; nothing for a whole history.
pub fn flaws(events: &[HistoryEvent]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut open: Vec<(&HistoryEvent, &str)> = Vec::new();
    for (number, event) in (1..).zip(events) {
        let id = event.id;
        if id != number {
            wrong.push(format!("event {number} has the id {id}"));
        }
        if event.previous_event_id >= id {
            wrong.push(format!("event {id} is led to by event {}", event.previous_event_id));
        }
        if !is_time(&event.timestamp) {
            wrong.push(format!("event {id} happens at {:?}", event.timestamp));
        }
        match part(event.kind) {
            Part::Begins(what) => open.push((event, what)),
            Part::Ends(what) => match open.pop() {
                Some((entry, begun))
                    if begun == what
                        && entry.id == event.previous_event_id
                        && entry.name() == event.name() => {}
                Some((entry, _)) => {
                    wrong.push(format!("event {id} does not end event {}", entry.id));
                }
                None => wrong.push(format!("event {id} ends nothing")),
            },
            Part::Between => {}
        }
    }
    wrong.extend(open.iter().map(|(entry, _)| format!("event {} is never ended", entry.id)));
    wrong
}

/// Whether `text` is an ISO 8601 time in UTC with milliseconds.
fn is_time(text: &str) -> bool {
    let form = "0000-00-00T00:00:00.000Z";
    let fits =
        |(want, is): (char, char)| if want == '0' { is.is_ascii_digit() } else { want == is };
    text.len() == form.len() && form.chars().zip(text.chars()).all(fits)
}
