//! Log lines on standard error: time, level, interface, text.

use std::io::Write as _;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use clap::ValueEnum;
use log::{Level, LevelFilter, Log, Metadata, Record};
use wg_bounce_sys::clock;

use crate::config_file::quote::printable;

/// The log level: wireguard-go's levels, with `info` in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum LogLevel {
    /// Nothing
    Silent,
    /// Errors and warnings
    Error,
    /// Also lifecycle and configuration events
    Info,
    /// Also handshakes, sessions and UAPI requests
    #[value(alias = "debug")]
    Verbose,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> LevelFilter {
        match level {
            LogLevel::Silent => LevelFilter::Off,
            LogLevel::Error => LevelFilter::Error,
            LogLevel::Info => LevelFilter::Info,
            LogLevel::Verbose => LevelFilter::Debug,
        }
    }
}

/// The interface named in each line.
static INTERFACE: RwLock<String> = RwLock::new(String::new());

struct Stderr {
    /// For systemd's journal, which adds the time, and reads the level from `<N>` (sd-daemon(3)).
    is_journal: bool,
}

/// Starts logging; each line names `interface`. A second call has no effect.
pub fn start(level: LogLevel, interface: &str) {
    let is_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let logger = Box::new(Stderr { is_journal });
    set_interface(interface);
    if log::set_logger(Box::leak(logger)).is_ok() {
        log::set_max_level(level.into());
    }
}

/// Names `interface` in each line from now on: the kernel replaces a `%d` in the requested name.
pub fn set_interface(interface: &str) {
    *INTERFACE.write().unwrap_or_else(PoisonError::into_inner) = interface.to_owned();
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let (level, priority) = match record.level() {
            Level::Error => ("ERROR", 3),
            Level::Warn => ("WARNING", 4),
            Level::Info => ("INFO", 6),
            Level::Debug | Level::Trace => ("DEBUG", 7),
        };
        let start = match self.is_journal {
            true => format!("<{priority}>"),
            false => timestamp(clock::wall_time()) + " ",
        };
        // One write per line, so that lines of several threads do not mix. A failed write cannot be
        // reported.
        let interface = INTERFACE.read().unwrap_or_else(PoisonError::into_inner);
        let text = record.args().to_string();
        let line = format!("{start}{level}: ({interface}) {}\n", printable(&text));
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

/// Time since the Unix epoch as RFC 3339 in UTC, with milliseconds.
pub(crate) fn timestamp(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (days, in_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (in_day / 3600, in_day / 60 % 60, in_day % 60);
    let millis = since_epoch.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Year, month and day of a day number since 1970-01-01, in the Gregorian calendar. Years start
/// in March, so that the leap day comes last (Howard Hinnant, `civil_from_days`).
fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 0000-03-01
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ];
        for (seconds, text) in cases {
            assert_eq!(timestamp(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn levels_include_what_is_below_them() {
        assert_eq!(LevelFilter::from(LogLevel::Silent), LevelFilter::Off);
        assert!(LevelFilter::from(LogLevel::Error) < Level::Info);
        assert!(Level::Debug <= LevelFilter::from(LogLevel::Verbose));
    }
}
