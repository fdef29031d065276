//! How memory, descriptors and threads of the service go over the run.

use std::error::Error;
use std::fs;
use std::time::Duration;

use super::service::Service;

/// What is looked at.
#[derive(Default)]
pub(crate) struct Course {
    points: Vec<Point>,
    peak_kib: f64,
}

/// Seconds since the beginning, and what was seen then.
type Point = (f64, [f64; NAMES.len()]);

/// What is known of pieces is a cache of a few MiB that takes gigabytes of new content to fill; what no
/// owner accounts for would be where a leak shows.
const NAMES: [&str; 6] = [
    "resident KiB",
    "anonymous KiB",
    "of it what is known of pieces, KiB",
    "resident that no owner accounts for, KiB",
    "descriptors",
    "threads",
];

impl Course {
    /// Looks at the service.
    pub(crate) fn look(&mut self, at: Duration, service: &Service) -> Result<(), Box<dyn Error>> {
        let pid = service.pid();
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| -> f64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            number.and_then(|number| number.parse().ok()).unwrap_or(0.0)
        };
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?.count() as f64;
        self.peak_kib = field("VmHWM:");
        let (resident_kib, anonymous_kib) = (field("VmRSS:"), field("RssAnon:"));
        let threads = field("Threads:");
        let status = service.status()?;
        let owner = |name: &str| -> Result<f64, Box<dyn Error>> {
            let bytes = status["memory"]["owners"][name].as_f64();
            Ok(bytes.ok_or_else(|| format!("the status has no {name}"))? / 1024.0)
        };
        let values = [
            resident_kib,
            anonymous_kib,
            owner("fingerprints_bytes")?,
            owner("rest_bytes")?,
            descriptors,
            threads,
        ];
        self.points.push((at.as_secs_f64(), values));
        Ok(())
    }

    /// Prints what it came to: the first fifth is left out, in which caches fill.
    pub(crate) fn print(&self) {
        let steady = &self.points[self.points.len() / 5..];
        println!("peak resident: {:.1} MiB", self.peak_kib / 1024.0);
        for (at, name) in NAMES.iter().enumerate() {
            let values = steady.iter().map(|(_, values)| values[at]);
            let least = values.clone().fold(f64::INFINITY, f64::min);
            let most = values.clone().fold(0.0, f64::max);
            let mean = values.sum::<f64>() / steady.len().max(1) as f64;
            println!(
                "{name}: {least:.0} to {most:.0}, mean {mean:.0}, slope {:+.2} a minute, fifths {}",
                60.0 * slope(steady, at),
                self.fifths(at)
            );
        }
    }

    /// The means of the five parts of the whole run: what fills up flattens, what grows does not.
    fn fifths(&self, at: usize) -> String {
        let length = self.points.len().div_ceil(5).max(1);
        let mean = |part: &[Point]| {
            part.iter().map(|(_, values)| values[at]).sum::<f64>() / part.len() as f64
        };
        let means = self.points.chunks(length).map(mean);
        let means: Vec<String> = means.map(|mean| format!("{mean:.0}")).collect();
        means.join(" ")
    }
}

/// The slope of the straight line that fits best, in units a second.
fn slope(points: &[Point], at: usize) -> f64 {
    let count = points.len().max(1) as f64;
    let mean = |of: fn(&Point, usize) -> f64| {
        points.iter().map(|point| of(point, at)).sum::<f64>() / count
    };
    let (time, value) = (mean(|point, _| point.0), mean(|point, at| point.1[at]));
    let mut products = (0.0, 0.0);
    for (moment, values) in points {
        products.0 += (moment - time) * (values[at] - value);
        products.1 += (moment - time).powi(2);
    }
    if products.1 > 0.0 {
        products.0 / products.1
    } else {
        0.0
    }
}
