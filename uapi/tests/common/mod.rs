//! Checks shared by the property tests and the fuzzer.

use wg_bounce_uapi::parse::{Incoming, RequestReader};
use wg_bounce_uapi::render::render_set;
use wg_bounce_uapi::types::{Rejection, Request};

/// Everything a reader yields for these chunks, as text. Panics if a rendered `set` does not
/// parse back to itself, or if the reason of an error is long or unprintable.
pub fn transcript<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let mut reader = RequestReader::new();
    let mut all = Vec::new();
    for mut chunk in chunks {
        while let Some(incoming) = reader.read(&mut chunk, &zones) {
            all.push(match incoming {
                Incoming::Request(Request::Get) => "get".to_owned(),
                Incoming::Request(Request::Set(set)) => {
                    let text = render_set(&set).to_string();
                    assert_eq!(text, render_again(&text), "a rendered set parses back");
                    format!("{text}{}", set.rejected.map(describe).unwrap_or_default())
                }
                Incoming::Request(Request::Explain(question)) => format!("{question:?}"),
                Incoming::Refused(rejection) => describe(rejection),
                Incoming::Unknown => "unknown".to_owned(),
            });
        }
    }
    all.push(format!("idle: {}", reader.is_idle()));
    all
}

fn render_again(text: &str) -> String {
    let incoming = RequestReader::new().read(&mut text.as_bytes(), &|_| None);
    let Some(Incoming::Request(Request::Set(set))) = incoming else { panic!("not a set: {text}") };
    assert_eq!(set.rejected, None);
    render_set(&set).to_string()
}

fn describe(rejection: Rejection) -> String {
    assert!(rejection.reason.len() < 400, "reason too long: {rejection:?}");
    assert!(rejection.reason.bytes().all(|byte| (b' '..0x7f).contains(&byte)), "{rejection:?}");
    format!("{} {}", rejection.errno.0, rejection.reason)
}

/// Resolves interface names that begin with an e.
fn zones(name: &str) -> Option<u32> {
    name.starts_with('e').then_some(7)
}
