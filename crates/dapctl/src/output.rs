//! What is printed: results on standard output, progress and errors on standard error.

use std::{
    io::{IsTerminal as _, Write as _},
    sync::Mutex,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use daphne_core::time::Time;
use indicatif::{ProgressBar, ProgressStyle};

use crate::Failure;

/// The end of the year 9999, in days since 1970.
const DAYS_MAX: u64 = 2_932_897;
/// Longest text of a peer that is shown, in characters.
const CLEAN_CHARS_MAX: usize = 300;
/// Without a terminal, progress is a line no more often than this.
const LINE_EVERY: Duration = Duration::from_secs(3);

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object, for programs.
    Json,
}

/// Text of a peer, safe to print: control and direction characters become spaces, and it is cut at 300 characters.
pub fn clean(text: &str) -> String {
    let mut out: String = text
        .chars()
        .map(|c| {
            let steers = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if c.is_control() || steers { ' ' } else { c }
        })
        .take(CLEAN_CHARS_MAX)
        .collect();
    if text.chars().nth(CLEAN_CHARS_MAX).is_some() {
        out.push('…');
    }
    out
}

/// A time as people write it, in UTC.
pub fn utc(time: Time) -> String {
    let (days, s) = (time.as_seconds() / 86_400, time.as_seconds() % 86_400);
    if days >= DAYS_MAX {
        return "in the far future".to_owned();
    }
    // Years begin in March, so that the day that comes and goes is their last; eras are of 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_of_year = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_of_year + 2) / 5 + 1;
    let month = if month_of_year < 10 { month_of_year + 3 } else { month_of_year - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (s / 3_600, s / 60 % 60, s % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// An error's text as one line.
pub fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_control())
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Prints a result on standard output.
///
/// # Errors
/// [`Failure::Wrong`] if standard output cannot be written.
pub fn print(format: Format, text: &str, json: &serde_json::Value) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match format {
        Format::Text if text.is_empty() => Ok(()),
        Format::Text => writeln!(out, "{}", text.trim_end()),
        Format::Json => writeln!(out, "{json}"),
    }
    .and_then(|()| out.flush())
    .map_err(|e| Failure::Wrong(format!("cannot write to standard output: {e}")))
}

/// Shows how far a long command is.
pub struct Progress(Shown);

enum Shown {
    Nothing,
    Bar(ProgressBar),
    Lines { what: &'static str, total: Option<u64>, state: Mutex<LineState> },
}

struct LineState {
    done: u64,
    printed: Instant,
}

impl Progress {
    /// Shows nothing.
    pub const fn silent() -> Self {
        Self(Shown::Nothing)
    }

    /// A bar if standard error is a terminal, or else a line every few seconds. `what` is counted, `total` the
    /// expected number.
    pub fn new(what: &'static str, total: Option<u64>) -> Self {
        if std::io::stderr().is_terminal() {
            let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
            let template = match total {
                Some(_) => "{wide_bar} {pos}/{len} {msg} ({per_sec}, {eta} left)",
                None => "{spinner} {pos} {msg} ({per_sec})",
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_message(what);
            Self(Shown::Bar(bar))
        } else {
            let state = Mutex::new(LineState { done: 0, printed: Instant::now() });
            Self(Shown::Lines { what, total, state })
        }
    }

    /// That many more are done.
    pub fn add(&self, n: u64) {
        match &self.0 {
            Shown::Nothing => {}
            Shown::Bar(bar) => bar.inc(n),
            Shown::Lines { what, total, state } => {
                let Ok(mut state) = state.lock() else { return };
                state.done += n;
                if state.printed.elapsed() >= LINE_EVERY {
                    state.printed = Instant::now();
                    match total {
                        Some(total) => eprintln!("{} of {total} {what}", state.done),
                        None => eprintln!("{} {what}", state.done),
                    }
                }
            }
        }
    }
}

/// Takes the bar away, so that what is printed next stands alone.
impl Drop for Progress {
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_text_cannot_steer_the_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\r\n\u{202e}c\u{9b}d"), "a [2Jb   c d");
        let long = clean(&"x".repeat(10_000));
        assert_eq!(long.chars().count(), CLEAN_CHARS_MAX + 1);
        assert_eq!(clean(&"x".repeat(CLEAN_CHARS_MAX)).chars().count(), CLEAN_CHARS_MAX);
    }

    #[test]
    fn times_are_dates() {
        for (s, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_700_000_000, "2023-11-14 22:13:20 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (253_402_300_799, "9999-12-31 23:59:59 UTC"),
            (253_402_300_800, "in the far future"),
            (u64::MAX, "in the far future"),
        ] {
            assert_eq!(utc(Time::from_seconds(s)), text, "{s}");
        }
    }

    #[test]
    fn errors_are_one_line() {
        assert_eq!(one_line("a\n  b\n\nc\t"), "a b c");
    }
}
