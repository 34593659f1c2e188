//! How far a run is, for who waits: a bar on a terminal, plain lines elsewhere.
//!
//! The bar is drawn when something changes, and not in between: a clock that ticks would use CPU
//! beside a measurement.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Before the first step has ended nobody knows how long the others take.
const FIRST: &str = "{bar:30} {pos} of {len}: {msg}";

const LATER: &str = "{bar:30} {pos} of {len}, {elapsed} so far, {eta} to go: {msg}";

/// The progress of a run of so many steps.
pub struct Progress(Option<ProgressBar>);

impl Progress {
    /// Nothing is done yet.
    pub fn new(steps: u64) -> Progress {
        let draw = || {
            let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
            bar.with_style(style(FIRST))
        };
        Progress(stderr().is_terminal().then(draw))
    }

    /// A step begins.
    pub fn begin(&self, step: &str) {
        match &self.0 {
            Some(bar) => bar.set_message(step.to_owned()),
            None => eprint!("{step} … "),
        }
    }

    /// It has ended with this outcome.
    pub fn end(&self, step: &str, outcome: &str) {
        match &self.0 {
            Some(bar) => {
                bar.println(format!("{step} … {outcome}"));
                bar.set_style(style(LATER));
                bar.inc(1);
            }
            None => eprintln!("{outcome}"),
        }
    }

    /// It was broken off.
    pub fn break_off(&self) {
        if self.0.is_none() {
            eprintln!();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a valid template")
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
