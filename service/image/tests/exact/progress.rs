//! Progress is true: one phase at a time, bytes and entries that never go backwards, and all of them in the end.

use crate::fake::{Client, Image, Layer, Registry, Reply, archive::Archive, noise, quick};
use banger_image::Progress;
use banger_model::Phase;
use proptest::prelude::*;
use std::sync::Mutex;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Event {
    Phase(Phase),
    Total(u64),
    Done(u64),
    Entries(u64),
}

/// Writes everything down in its order.
#[derive(Default)]
struct Recorder(Mutex<Vec<Event>>);

impl Recorder {
    fn note(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

impl Progress for Recorder {
    fn phase(&self, phase: Phase) {
        self.note(Event::Phase(phase));
    }

    fn total(&self, bytes: u64) {
        self.note(Event::Total(bytes));
    }

    fn advance(&self, done: u64) {
        self.note(Event::Done(done));
    }

    fn entries(&self, written: u64) {
        self.note(Event::Entries(written));
    }
}

/// What a registry does to the first answer for each layer.
#[derive(Debug, Clone, Copy)]
enum Fault {
    None,
    Cut(u8),
    Busy,
    /// For good: the pull fails.
    Gone,
    Wrong,
}

/// Pulls, and gives what was told and how many names the image has, when there is one.
fn pull(layers: &[(u16, u32)], fault: Fault) -> (Vec<Event>, u64, Option<u64>) {
    let registry = Registry::start();
    let image = Image::new(
        layers
            .iter()
            .enumerate()
            .map(|(number, (files, bytes))| {
                let mut archive = Archive::new().dir(format!("layer{number}"));
                for file in 0..*files {
                    archive = archive.file(format!("layer{number}/{file}"), "x");
                }
                Layer::gzip(
                    archive.file(format!("noise{number}"), noise(number as u64, *bytes as usize)).end(),
                )
            })
            .collect(),
    );
    let sizes: u64 = image.layers.iter().map(|layer| layer.blob.len() as u64).sum();
    let names: u64 = layers.iter().map(|(files, _)| u64::from(*files) + 2).sum();
    registry.put_image("1", &image);
    let config = banger_image::Digest::of(image.config().as_bytes()).to_string();
    registry.change(move |request, reply| match fault {
        _ if !request.path.contains("/blobs/") || request.path.ends_with(&config) => reply,
        Fault::Gone => Reply::new(404, ""),
        Fault::Wrong => Reply { body: noise(9, reply.body.len()), ..reply },
        Fault::Cut(part) if request.earlier == 0 => {
            Reply { cut: Some(reply.body.len() * usize::from(part) / 256), ..reply }
        }
        Fault::Busy if request.earlier == 0 => Reply::new(503, ""),
        _ => reply,
    });
    let client = Client::new(quick());
    let request = client.request(registry.reference(":1"));
    let recorder = Recorder::default();
    let pulled = tokio::runtime::Runtime::new().unwrap().block_on(client.puller.pull(
        &request,
        &recorder,
        &CancellationToken::new(),
    ));
    (recorder.0.into_inner().unwrap(), sizes, pulled.is_ok().then_some(names))
}

fn values(events: &[Event], which: impl Fn(&Event) -> Option<u64>) -> Vec<u64> {
    events.iter().filter_map(which).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn progress_is_true_for_any_image_and_fault(
        layers in proptest::collection::vec((0u16..300, 0u32..3_000_000), 1..4),
        fault in prop_oneof![
            2 => Just(Fault::None),
            2 => any::<u8>().prop_map(Fault::Cut),
            1 => Just(Fault::Busy),
            1 => Just(Fault::Gone),
            1 => Just(Fault::Wrong),
        ],
    ) {
        let (events, size, names) = pull(&layers, fault);
        let phases: Vec<Event> = events.iter().copied().filter(|e| matches!(e, Event::Phase(_))).collect();
        let all = [Phase::Resolving, Phase::Pulling, Phase::Writing].map(Event::Phase);
        prop_assert!(all.starts_with(&phases), "{phases:?}");
        let place = |event: Event| events.iter().position(|e| *e == event);
        let pulling = place(Event::Phase(Phase::Pulling)).unwrap();
        prop_assert_eq!(place(Event::Total(size)), Some(pulling + 1), "the total is told when the phase begins");
        prop_assert_eq!(values(&events, |e| if let Event::Total(n) = e { Some(*n) } else { None }).len(), 1);
        // Bytes and entries belong to the phase of pulling.
        let end = place(Event::Phase(Phase::Writing)).unwrap_or(events.len());
        let inside = |e: &Event| matches!(e, Event::Done(_) | Event::Entries(_));
        prop_assert!(!events[..pulling].iter().any(inside) && !events[end..].iter().any(inside));

        let done = values(&events, |e| if let Event::Done(n) = e { Some(*n) } else { None });
        let entries = values(&events, |e| if let Event::Entries(n) = e { Some(*n) } else { None });
        prop_assert!(done.is_sorted() && done.iter().all(|n| *n <= size), "{done:?} of {size}");
        prop_assert!(entries.is_sorted(), "{entries:?}");
        match names {
            Some(names) => {
                prop_assert_eq!(phases.len(), 3);
                prop_assert_eq!((done.last(), entries.last()), (Some(&size), Some(&names)));
            }
            None => {
                prop_assert!(matches!(fault, Fault::Gone | Fault::Wrong));
                prop_assert!(phases.len() == 2 && done.last() != Some(&size), "{done:?} of {size}: it failed");
            }
        }
    }
}
