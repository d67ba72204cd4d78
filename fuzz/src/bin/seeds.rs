//! Writes inputs to begin with, or, with `--reports`, new reports.

use std::{fs, path::Path};

use daphne_fuzz::{
    TARGETS,
    fixture::{SETUPS, make},
};

fn main() -> std::io::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("--reports") => reports(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/reports"))),
        Some(folder) if !folder.starts_with('-') => seeds(Path::new(folder)),
        _ => {
            eprintln!(
                "usage: seeds FOLDER     writes inputs for each target into FOLDER/TARGET\n\
                 \x20      seeds --reports  makes fuzz/reports anew; what is kept of inputs may then mean something else"
            );
            std::process::exit(2);
        }
    }
}

fn seeds(folder: &Path) -> std::io::Result<()> {
    for target in TARGETS {
        let folder = folder.join(target.name);
        fs::create_dir_all(&folder)?;
        for (n, seed) in (target.seeds)().into_iter().enumerate() {
            fs::write(folder.join(format!("{n:04}")), seed)?;
        }
    }
    Ok(())
}

fn reports(folder: &Path) -> std::io::Result<()> {
    for setup in SETUPS {
        fs::write(folder.join(format!("{}.bin", setup.name)), make::reports(&setup))?;
    }
    fs::write(folder.join("shares.bin"), make::shares())
}
