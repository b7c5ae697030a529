//! The `process_*` metrics that every Prometheus client library exposes.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

#[derive(Debug)]
struct ProcessCollector;

/// Registers `process_cpu_seconds_total`, `process_resident_memory_bytes` and their siblings.
pub fn register_process_metrics(registry: &mut Registry) {
    registry.register_collector(Box::new(ProcessCollector));
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Ok(process) = procfs::process::Process::myself() else { return Ok(()) };
        let Ok(stat) = process.stat() else { return Ok(()) };
        let ticks = procfs::ticks_per_second() as f64;
        let cpu = (stat.utime + stat.stime) as f64 / ticks;
        let cpu = ConstCounter::new(cpu);
        let name = "process_cpu_seconds";
        cpu.encode(encoder.encode_descriptor(
            name,
            "Total user and system CPU time spent in seconds.",
            None,
            cpu.metric_type(),
        )?)?;
        let started =
            procfs::boot_time_secs().unwrap_or_default() as f64 + stat.starttime as f64 / ticks;
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Resident memory size in bytes.",
                (stat.rss * procfs::page_size()) as f64,
            ),
            ("process_virtual_memory_bytes", "Virtual memory size in bytes.", stat.vsize as f64),
            (
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
                started,
            ),
            (
                "process_open_fds",
                "Number of open file descriptors.",
                process.fd_count().unwrap_or_default() as f64,
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
