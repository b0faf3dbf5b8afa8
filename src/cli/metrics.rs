//! `ria metrics`: the agent's figures for Prometheus, on standard output or in a file that node_exporter reads.

use std::io::Write as _;
use std::path::Path;

use serde_json::json;

use super::Context;
use super::args::MetricsArgs;
use super::failure::{FAILED, Failure};
use crate::metrics;

pub async fn run(context: &Context, args: &MetricsArgs) -> Result<(), Failure> {
    let agent = context.agent().await?;
    let status = agent.proxy().status().await?;
    let mut networks = Vec::with_capacity(status.networks.len());
    for summary in &status.networks {
        let network = agent.network_at(&summary.path).await?;
        networks.push((network.status().await?, network.peers().await?));
    }
    let text = metrics::text(&status, &networks);
    let Some(file) = &args.output else {
        let output = context.output;
        return if output.json {
            Ok(output.value(&json!({ "metrics": text }))?)
        } else {
            Ok(std::io::stdout().write_all(text.as_bytes())?)
        };
    };
    replace(file, &text)
        .map_err(|error| Failure::new(FAILED, format!("can't write {}: {error}", file.display())))
}

/// Whoever reads the file sees the old text or the new one.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut new = tempfile::Builder::new().prefix(".ria-metrics").tempfile_in(directory)?;
    new.write_all(text.as_bytes())?;
    // Temporary files are their owner's alone; node_exporter is somebody else.
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    new.as_file().set_permissions(readable)?;
    new.persist(file).map(|_| ()).map_err(|error| error.error)
}
