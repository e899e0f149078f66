//! Collects the metrics.

use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::observe::metrics::{Kind, METRICS, Metric, describe};

/// How often what histograms have gathered is summed up. It would grow if nobody ever scraped.
const UPKEEP: Duration = Duration::from_secs(5);

/// Collects all metrics of this process from now on; can be done once.
pub(super) fn install() -> Result<PrometheusHandle, String> {
    let mut builder = PrometheusBuilder::new();
    for Metric { name, kind, .. } in METRICS {
        if let Kind::Histogram(buckets) = kind {
            let set = builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), buckets);
            builder = set.map_err(|error| error.to_string())?;
        }
    }
    let handle = builder.install_recorder().map_err(|error| error.to_string())?;
    describe();
    Ok(handle)
}

/// Never returns.
pub(super) async fn keep_small(handle: PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        handle.run_upkeep();
    }
}
