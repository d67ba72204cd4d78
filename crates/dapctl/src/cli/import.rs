//! Tasks from files and to files.

use std::path::PathBuf;

use clap::Args;
use daphne_core::ids::TaskId;

/// Which tasks to import, and how.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The file
    pub file: PathBuf,
    /// Check all of it, and create nothing
    #[arg(long)]
    pub check: bool,
    /// Older reports are refused, in seconds, where the file says that none are: something must be forgotten one day
    /// [default: 14 days]
    #[arg(long, value_name = "SECONDS")]
    pub report_expiry_age: Option<u64>,
    /// Leave the tasks' HPKE keys. By default they are imported, not published, and open reports that are made within a
    /// week: clients may have them still
    #[arg(long)]
    pub no_keys: bool,
}

/// Which tasks to export.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The tasks [default: all]
    // An id may begin with a hyphen.
    #[arg(allow_hyphen_values = true)]
    pub task_ids: Vec<TaskId>,
}
