//! Time that the steps take natively, and sealing, which is the client's work: `scripts/bench micro`, `cargo bench -p micro`.
//!
//! For whoever changes the codec, HPKE or a VDAF and wants to see by how much, with the processor's own instructions for
//! AES and hashes. The Worker has none of these: `scripts/bench wasm` measures what it has.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use daphne_core::hpke::{self, Role};
use micro::{ALL, Case, REPORTS, STEPS};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    seal(&mut criterion);
    steps(&mut criterion);
    criterion.final_summary();
}

/// Sealing an input share of as many bytes as most have.
fn seal(criterion: &mut Criterion) {
    let key = Case::key(3);
    let mut group = criterion.benchmark_group("seal");
    group.throughput(Throughput::Elements(1));
    for id in ALL.iter().filter(|id| id.name.ends_with("/count")) {
        let info = hpke::input_share_info(id.version, Role::Helper);
        group.bench_function(BenchmarkId::from_parameter(id.version.tag()), |bencher| {
            bencher
                .iter(|| hpke::seal(key.config(), &info, black_box(&[0; 64]), &[1; 64], &[2; 32]));
        });
    }
    group.finish();
}

/// Each step for all reports of each job; the rate is in reports.
fn steps(criterion: &mut Criterion) {
    for (name, step) in STEPS {
        let mut group = criterion.benchmark_group(*name);
        group.throughput(Throughput::Elements(REPORTS as u64));
        for id in ALL {
            let case = Case::new(id);
            let bench = case.bench();
            group.bench_function(BenchmarkId::from_parameter(id.name), |bencher| {
                bencher.iter(|| bench.run(black_box(*step)));
            });
        }
        group.finish();
    }
}
