//! How far a long run is: a bar on a terminal, or a JSON object a line, drawn by a thread that samples counters, so
//! that the working threads only count.

use std::collections::VecDeque;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use repository::progress::Phase;

use crate::error::Code;
use crate::human;
use crate::output::{Output, terminal_width};
use crate::signals;
use crate::status_line::{self, StatusLine};

const BAR_EVERY: Duration = Duration::from_millis(100);
const JSON_EVERY: Duration = Duration::from_millis(250);
/// A run shorter than this shows no bar.
const BAR_AFTER: Duration = Duration::from_millis(300);
/// Stands for the bar until it is drawn.
const COLORED: &str = "#";
/// Between the figures behind the bar.
const BETWEEN: &str = "   ";
/// The rate is that of the last few seconds.
const RATE_OVER: Duration = Duration::from_secs(4);

/// What was counted so far.
#[derive(Default)]
pub(crate) struct Counts {
    files_total: AtomicU64,
    bytes_total: AtomicU64,
    files_done: AtomicU64,
    bytes_done: AtomicU64,
    /// Whether the totals will not grow any more.
    total_known: AtomicBool,
    doing: Mutex<Doing>,
    ended: Mutex<bool>,
    end: Condvar,
}

/// What a run is at.
#[derive(Clone, Default)]
struct Doing {
    label: String,
    /// What is counted, besides bytes: "file".
    unit: &'static str,
}

impl Counts {
    /// So many more are to be done.
    pub(crate) fn found(&self, files: u64, bytes: u64) {
        self.files_total.fetch_add(files, Ordering::Relaxed);
        self.bytes_total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The totals are complete.
    pub(crate) fn found_all(&self) {
        self.total_known.store(true, Ordering::Release);
    }

    /// So many more are done.
    pub(crate) fn done(&self, files: u64, bytes: u64) {
        self.files_done.fetch_add(files, Ordering::Relaxed);
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    fn doing(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().expect("no panic while it is held")
    }

    /// Begins anew, for the next phase of a run.
    pub(crate) fn restart(&self, label: &str, unit: &'static str, files: Option<u64>, bytes: Option<u64>) {
        *self.doing() = Doing { label: label.to_owned(), unit };
        self.files_done.store(0, Ordering::Relaxed);
        self.bytes_done.store(0, Ordering::Relaxed);
        self.files_total.store(files.unwrap_or(0), Ordering::Relaxed);
        self.bytes_total.store(bytes.unwrap_or(0), Ordering::Relaxed);
        self.total_known.store(files.is_some() || bytes.is_some(), Ordering::Release);
    }

    /// Waits; true if the run has ended meanwhile.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let ended = self.ended.lock().expect("no panic while the end is held");
        *self.end.wait_timeout_while(ended, time, |ended| !*ended).expect("no panic while the end is held").0
    }
}

/// Watches a run until it is dropped.
pub(crate) struct Meter<'a> {
    output: &'a Output,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

impl<'a> Meter<'a> {
    /// Begins to show progress, if anybody wants to see it. `label` says what is done.
    pub(crate) fn start(output: &'a Output, label: &str) -> Self {
        let counts = Arc::new(Counts::default());
        *counts.doing() = Doing { label: label.to_owned(), unit: "file" };
        let mut meter = Meter { output, counts: Arc::clone(&counts), thread: None };
        let builder = std::thread::Builder::new().name("progress".to_owned());
        // Without a thread for the bar, the work is done all the same.
        if output.wants_bar() {
            let bar = Bar { line: output.status.clone(), colored: output.accent(COLORED) };
            meter.thread = builder.spawn(move || bar.draw(&counts)).ok();
        } else if output.json && !output.quiet {
            meter.thread = builder.spawn(move || tell(&counts)).ok();
        }
        meter
    }

    /// Whether anybody sees totals.
    pub(crate) fn is_shown(&self) -> bool {
        self.thread.is_some()
    }

    /// The counters, for a thread that finds the totals.
    pub(crate) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }
}

impl Drop for Meter<'_> {
    fn drop(&mut self) {
        *self.counts.ended.lock().expect("no panic while the end is held") = true;
        self.counts.end.notify_all();
        if let Some(thread) = self.thread.take() {
            // Panicking here would hide why the run failed.
            let _ = thread.join();
        }
        self.output.status.clear();
    }
}

/// One look at the counters.
struct Sample {
    doing: Doing,
    files_done: u64,
    files_total: Option<u64>,
    bytes_done: u64,
    bytes_total: Option<u64>,
    bytes_per_sec: u64,
    secs_left: Option<u64>,
}

struct Sampler<'a> {
    counts: &'a Counts,
    recent: VecDeque<(Instant, u64)>,
}

impl Sampler<'_> {
    fn sample(&mut self) -> Sample {
        let counts = self.counts;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let known = counts.total_known.load(Ordering::Acquire);
        let (files_done, bytes_done) = (load(&counts.files_done), load(&counts.bytes_done));
        let now = Instant::now();
        if self.recent.back().is_some_and(|(_, bytes)| *bytes > bytes_done) {
            self.recent.clear();
        }
        while self.recent.len() > 1 && self.recent.front().is_some_and(|(at, _)| now - *at > RATE_OVER) {
            self.recent.pop_front();
        }
        let rate = self.recent.front().map_or(0.0, |(at, bytes)| {
            let secs = (now - *at).as_secs_f64();
            if secs > 0.0 { (bytes_done - bytes) as f64 / secs } else { 0.0 }
        });
        self.recent.push_back((now, bytes_done));
        // Files that grew since they were counted must not lead beyond the end.
        let bytes_total = known.then(|| load(&counts.bytes_total).max(bytes_done));
        let files_total = known.then(|| load(&counts.files_total).max(files_done));
        let left =
            bytes_total.filter(|total| *total > 0 && rate >= 1.0).map(|total| (total - bytes_done) as f64 / rate);
        Sample {
            doing: counts.doing().clone(),
            files_done,
            files_total,
            bytes_done,
            bytes_total,
            bytes_per_sec: rate as u64,
            secs_left: left.map(|secs| secs.ceil() as u64),
        }
    }
}

/// What the thread of a bar needs.
struct Bar {
    line: StatusLine,
    /// [`COLORED`] in its colour.
    colored: String,
}

impl Bar {
    fn draw(&self, counts: &Counts) {
        let mut sampler = Sampler { counts, recent: VecDeque::new() };
        sampler.sample();
        let mut wait = BAR_AFTER;
        while !counts.wait(wait) {
            wait = BAR_EVERY;
            let width = usize::from(terminal_width(&std::io::stderr()).unwrap_or(80));
            self.line.draw(self.text(&sampler.sample(), width));
        }
    }

    fn text(&self, sample: &Sample, width: usize) -> String {
        let label = if signals::is_cancelled() { "stopping" } else { &sample.doing.label };
        let (done, total) = match (sample.bytes_total, sample.files_total) {
            (Some(bytes), _) if bytes > 0 => (sample.bytes_done, bytes),
            (_, Some(files)) => (sample.files_done, files),
            _ => (0, 0),
        };
        // A narrow terminal gets a shorter bar, or none, before it loses the figures.
        for bar_width in [24, 12, 0] {
            let mut begin = label.to_owned();
            let mut used = label.len();
            if total > 0 {
                if bar_width > 0 {
                    let bar = status_line::bar(done, total, bar_width);
                    begin.push_str(&format!("  {}", self.colored.replace(COLORED, &bar)));
                    used += bar_width + 2;
                }
                begin.push_str(&format!(" {:>3} %", u128::from(done) * 100 / u128::from(total)));
                used += 6;
            }
            // Room for the `^C` that the terminal shows.
            let room = width.saturating_sub(used + BETWEEN.len() + 3);
            let rest = sample.text(room);
            if rest.len() <= room {
                return format!("{begin}{BETWEEN}{rest}");
            }
        }
        label.chars().take(width).collect()
    }
}

impl Sample {
    /// As much as fits into so many columns.
    fn text(&self, room: usize) -> String {
        let mut parts = Vec::new();
        match self.bytes_total {
            Some(total) if total > 0 => {
                parts.push(format!("{} of {}", human::size(self.bytes_done), human::size(total)));
            }
            _ if self.bytes_done > 0 => parts.push(human::size(self.bytes_done)),
            _ => {}
        }
        if self.bytes_per_sec > 0 {
            parts.push(format!("{}/s", human::size(self.bytes_per_sec)));
        }
        match self.files_total {
            Some(total) if total > 0 && self.bytes_total.is_none_or(|bytes| bytes == 0) => {
                let total = human::counted(total, self.doing.unit);
                parts.push(format!("{} of {total}", human::count(self.files_done)));
            }
            _ if self.files_done > 0 => parts.push(human::counted(self.files_done, self.doing.unit)),
            _ => {}
        }
        if let Some(secs) = self.secs_left {
            parts.push(format!("{} left", human::rough_duration(secs)));
        }
        while parts.len() > 1 && parts.join(BETWEEN).len() > room {
            // How many files there are is what one misses least; then the rate.
            parts.remove(if parts.len() > 3 { 2 } else { 1 });
        }
        parts.join(BETWEEN)
    }
}

fn tell(counts: &Counts) {
    let mut sampler = Sampler { counts, recent: VecDeque::new() };
    sampler.sample();
    let start = Instant::now();
    while !counts.wait(JSON_EVERY) {
        let sample = sampler.sample();
        let line = serde_json::json!({
            "type": "progress",
            "action": sample.doing.label,
            "unit": sample.doing.unit,
            "seconds": start.elapsed().as_secs_f64(),
            "files_done": sample.files_done,
            "files_total": sample.files_total,
            "bytes_done": sample.bytes_done,
            "bytes_total": sample.bytes_total,
            "bytes_per_second": sample.bytes_per_sec,
            "seconds_left": sample.secs_left,
        });
        use std::io::Write as _;
        // Whoever closed stdout will be told by the summary.
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }
}

impl backup::progress::Progress for Meter<'_> {
    fn found(&self, files: u64, bytes: u64) {
        // Whoever knew the totals beforehand has told them.
        if !self.counts.total_known.load(Ordering::Acquire) {
            self.counts.found(files, bytes);
        }
    }

    fn bytes_done(&self, bytes: u64) {
        self.counts.done(0, bytes);
    }

    fn file_done(&self, path: &dyn Fn() -> PathBuf) {
        self.counts.done(1, 0);
        if self.output.verbose {
            let path = path();
            if !path.as_os_str().is_empty() {
                self.output.detail(path.display());
            }
        }
    }

    fn error(&self, path: &Path, error: &dyn Display) {
        // What fails because the run ends is no news.
        if !signals::is_cancelled() {
            self.output.file_error(path, error);
        }
    }

    fn warning(&self, text: &str) {
        self.output.warning(text);
    }

    fn is_cancelled(&self) -> bool {
        signals::is_cancelled()
    }
}

impl repository::progress::Progress for Meter<'_> {
    fn begin(&self, phase: Phase, items: Option<u64>, bytes: Option<u64>) {
        let unit = match phase {
            Phase::Index | Phase::Remove => "file",
            Phase::Trees => "tree",
            Phase::ReadPacks | Phase::Headers | Phase::WriteIndex => "pack",
            Phase::Repack | Phase::Copy => "blob",
            Phase::Records => "record",
        };
        self.counts.restart(&phase.to_string(), unit, items, bytes);
    }

    fn advance(&self, items: u64, bytes: u64) {
        self.counts.done(items, bytes);
    }

    fn warning(&self, text: &str) {
        self.output.warning(text);
    }

    fn is_cancelled(&self) -> bool {
        signals::is_cancelled()
    }
}

/// Watches a run that shows results and no progress: it only tells and counts what could not be read.
pub(crate) struct Quiet {
    output: Output,
    errors: AtomicU64,
}

impl Quiet {
    pub(crate) fn new(output: &Output) -> Self {
        Quiet { output: output.clone(), errors: AtomicU64::new(0) }
    }

    /// Whether everything could be read.
    pub(crate) fn exit_code(&self) -> ExitCode {
        if self.errors.load(Ordering::Relaxed) == 0 { ExitCode::SUCCESS } else { Code::Failed.into() }
    }
}

impl backup::progress::Progress for Quiet {
    fn error(&self, path: &Path, error: &dyn Display) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.output.file_error(path, error);
    }

    fn warning(&self, text: &str) {
        self.output.warning(text);
    }

    fn is_cancelled(&self) -> bool {
        signals::is_cancelled()
    }
}

impl repository::progress::Progress for Quiet {
    fn warning(&self, text: &str) {
        self.output.warning(text);
    }

    fn is_cancelled(&self) -> bool {
        signals::is_cancelled()
    }
}
