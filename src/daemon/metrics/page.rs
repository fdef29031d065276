//! Metric families, written one after the other: each with its name, what it means, and its unit.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, MetricEncoder,
    NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// A family's name without its unit, the unit, and what it means.
pub(super) struct Family<'a>(pub &'a str, pub Option<Unit>, pub &'a str);

/// A sample of a family: the value of its one label, and its value.
pub(super) type Labelled<'a, V> = (&'a str, V);

/// See the head of this file.
pub(super) struct Page<'a>(pub DescriptorEncoder<'a>);

impl Page<'_> {
    /// A number that goes up and down.
    pub(super) fn gauge(&mut self, of: Family<'_>, value: impl EncodeGaugeValue) -> fmt::Result {
        self.begin(&of, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// The same, by a label.
    pub(super) fn gauges<V: EncodeGaugeValue>(
        &mut self,
        of: Family<'_>,
        label: &str,
        values: &[Labelled<'_, V>],
    ) -> fmt::Result {
        let mut family = self.begin(&of, MetricType::Gauge)?;
        for (name, value) in values {
            family
                .encode_family(&[(label, *name)])?
                .encode_gauge(value)?;
        }
        Ok(())
    }

    /// One of several, told as a 1 at that one and a 0 at the others.
    pub(super) fn choice(
        &mut self,
        of: Family<'_>,
        label: &str,
        all: &[&str],
        chosen: &str,
    ) -> fmt::Result {
        let all: Vec<_> = (all.iter())
            .map(|name| (*name, u64::from(*name == chosen)))
            .collect();
        self.gauges(of, label, &all)
    }

    /// A number that only grows.
    pub(super) fn counter(&mut self, of: Family<'_>, value: u64) -> fmt::Result {
        let mut family = self.begin(&of, MetricType::Counter)?;
        count(&mut family, value)
    }

    /// The same, by a label.
    pub(super) fn counters(
        &mut self,
        of: Family<'_>,
        label: &str,
        values: &[Labelled<'_, u64>],
    ) -> fmt::Result {
        let mut family = self.begin(&of, MetricType::Counter)?;
        for (name, value) in values {
            count(&mut family.encode_family(&[(label, *name)])?, *value)?;
        }
        Ok(())
    }

    /// How long something took: so many below each bound and not below the one before it; the last bound
    /// is that of all times.
    pub(super) fn times(
        &mut self,
        of: Family<'_>,
        sum: Duration,
        below: impl IntoIterator<Item = (Duration, u64)>,
    ) -> fmt::Result {
        let mut buckets: Vec<_> = (below.into_iter())
            .map(|(bound, count)| (bound.as_secs_f64(), count))
            .collect();
        if let Some((bound, _)) = buckets.last_mut() {
            *bound = f64::INFINITY;
        }
        let count = buckets.iter().map(|(_, count)| count).sum();
        self.begin(&of, MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(sum.as_secs_f64(), count, &buckets, None)
    }

    /// Something that is told as text.
    pub(super) fn info(&mut self, of: Family<'_>, labels: &impl EncodeLabelSet) -> fmt::Result {
        self.begin(&of, MetricType::Info)?.encode_info(labels)
    }

    fn begin<'s>(
        &'s mut self,
        Family(name, unit, means): &'s Family<'_>,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, means, unit.as_ref(), kind)
    }
}

fn count(family: &mut MetricEncoder<'_>, value: impl EncodeCounterValue) -> fmt::Result {
    family.encode_counter::<NoLabelSet, _, u64>(&value, None)
}
