//! Runs the targets on the kept inputs and on damaged copies of them: without libFuzzer, in seconds, the same each time.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::exit,
    time::Instant,
};

use daphne_fuzz::{
    TARGETS, Target,
    damage::{Random, damage},
};

const USAGE: &str = "usage: replay [--damaged N] [--seed S] [TARGET]...
       replay TARGET FILE...

Runs each target on what fuzz/corpus/TARGET keeps and on the inputs to begin with, then on N damaged copies of
them (1000). What a target panics at is written to fuzz/artifacts/TARGET. With files, it runs on these only.";

struct Options {
    damaged: u64,
    seed: u64,
    targets: Vec<Target>,
    files: Vec<PathBuf>,
}

fn main() {
    let Some(options) = options() else {
        eprintln!("{USAGE}");
        exit(2);
    };
    if let ([target], false) = (&options.targets[..], options.files.is_empty()) {
        for file in &options.files {
            (target.run)(&read(file));
            println!("{}: {} does no harm", target.name, file.display());
        }
        return;
    }
    for target in &options.targets {
        replay(target, &options);
    }
}

fn options() -> Option<Options> {
    let mut options = Options { damaged: 1_000, seed: 0, targets: Vec::new(), files: Vec::new() };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--damaged" => options.damaged = arguments.next()?.parse().ok()?,
            "--seed" => options.seed = arguments.next()?.parse().ok()?,
            name if name.starts_with('-') => return None,
            name => match TARGETS.into_iter().find(|target| target.name == name) {
                Some(target) => options.targets.push(target),
                None if !options.targets.is_empty() => options.files.push(name.into()),
                None => return None,
            },
        }
    }
    if options.targets.is_empty() {
        options.targets.extend(TARGETS);
    }
    Some(options)
}

fn read(file: &Path) -> Vec<u8> {
    fs::read(file).unwrap_or_else(|e| {
        eprintln!("cannot read {}: {e}", file.display());
        exit(2)
    })
}

fn replay(target: &Target, options: &Options) {
    let begun = Instant::now();
    let mut inputs = kept(target);
    let kept = inputs.len();
    inputs.extend((target.seeds)());
    for input in &inputs {
        run(target, input);
    }
    let mut random = Random::new(options.seed);
    let mut input = Vec::new();
    for _ in 0..options.damaged {
        let one = &inputs[random.below(inputs.len())];
        let other = &inputs[random.below(inputs.len())];
        damage(&mut random, one, &[], other, &mut input);
        run(target, &input);
    }
    println!(
        "{}: {kept} kept inputs, {} to begin with, {} damaged; {:.1} s",
        target.name,
        inputs.len() - kept,
        options.damaged,
        begun.elapsed().as_secs_f32()
    );
}

/// What `fuzz/corpus` keeps for a target.
fn kept(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

fn run(target: &Target, input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_ok() {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts").join(target.name);
    let file = folder.join("replay");
    match fs::create_dir_all(&folder).and_then(|()| fs::write(&file, input)) {
        Ok(()) => eprintln!("{}: the input is in {}", target.name, file.display()),
        Err(e) => eprintln!("{}: cannot write {}: {e}", target.name, file.display()),
    }
    exit(1);
}
