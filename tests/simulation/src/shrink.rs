//! Makes a failing schedule small, and writes it down so that it can be kept as a test.

use serde::{Deserialize, Serialize};

use crate::{
    choices::Choices,
    sabotage::Sabotage,
    scenario::Scenario,
    schedule::{self, Report},
};

/// Runs spent on one schedule.
const RUNS_MAX: u32 = 4_000;

/// A schedule written down: its scenario, and those of its decisions that are not 0, with their positions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reproduction {
    scenario: Scenario,
    choices: Vec<(usize, u32)>,
}

impl Reproduction {
    /// The schedule with these decisions.
    pub fn new(scenario: &Scenario, choices: &[u32]) -> Self {
        let choices = choices.iter().copied().enumerate().filter(|(_, c)| *c != 0);
        Self { scenario: scenario.clone(), choices: choices.collect() }
    }

    /// Reads what [`Reproduction::to_json`] wrote.
    ///
    /// # Errors
    /// It is not one.
    pub fn from_json(json: &str) -> Result<Self, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    /// One line of JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// A test that runs it, to be pasted.
    pub fn to_test(&self, violation: &str) -> String {
        let name = "say_what_must_hold";
        let json = self.to_json();
        format!(
            "/// Was: {violation}.\n#[test]\nfn {name}() {{\n    holds(\n        r#\"{json}\"#,\n    );\n}}\n"
        )
    }

    fn decisions(&self) -> Vec<u32> {
        let mut choices = vec![0; self.choices.last().map_or(0, |(at, _)| at + 1)];
        for (at, choice) in &self.choices {
            choices[*at] = *choice;
        }
        choices
    }

    /// Runs it.
    pub fn run(&self, sabotage: Option<Sabotage>, trace: bool) -> Report {
        schedule::run(&self.scenario, Choices::scripted(self.decisions()), sabotage, trace)
    }

    /// Number of decisions that are not the plainest.
    pub fn len(&self) -> usize {
        self.choices.len()
    }

    /// Whether all decisions are the plainest.
    pub fn is_empty(&self) -> bool {
        self.choices.is_empty()
    }
}

/// Makes a failing schedule simpler as long as it fails, however it fails.
pub fn shrink(failing: Reproduction, sabotage: Option<Sabotage>) -> Reproduction {
    let mut shrinker = Shrinker { best: failing, sabotage, runs: 0 };
    loop {
        let before = shrinker.best.clone();
        shrinker.simplify_scenario();
        shrinker.drop_choices();
        shrinker.lower_choices();
        if shrinker.best == before || shrinker.runs >= RUNS_MAX {
            return shrinker.best;
        }
    }
}

struct Shrinker {
    best: Reproduction,
    sabotage: Option<Sabotage>,
    runs: u32,
}

impl Shrinker {
    /// Takes `simpler` if it still fails. What it really decided replaces what it was told to.
    fn keep(&mut self, simpler: Reproduction) -> bool {
        if self.runs >= RUNS_MAX {
            return false;
        }
        self.runs += 1;
        let report = simpler.run(self.sabotage, false);
        let fails = report.violation.is_some();
        if fails {
            let made = Reproduction::new(&simpler.scenario, &report.choices);
            self.best = if made.len() <= simpler.len() { made } else { simpler };
        }
        fails
    }

    fn simplify_scenario(&mut self) {
        let mut n = 0;
        while let Some(scenario) = self.best.scenario.simpler().into_iter().nth(n) {
            let choices = self.best.choices.clone();
            if !self.keep(Reproduction { scenario, choices }) {
                n += 1;
            }
            if self.runs >= RUNS_MAX {
                return;
            }
        }
    }

    /// Makes runs of decisions plain, long runs first.
    fn drop_choices(&mut self) {
        let mut length = self.best.len();
        while length > 0 {
            let mut at = 0;
            while at < self.best.len() {
                let mut simpler = self.best.clone();
                simpler.choices.drain(at..(at + length).min(simpler.choices.len()));
                if !self.keep(simpler) {
                    at += length;
                }
            }
            length /= 2;
        }
        // Decisions that are left out altogether move all later ones.
        let mut at = 0;
        while at < self.best.len() && self.runs < RUNS_MAX {
            let mut simpler = self.best.clone();
            simpler.choices.iter_mut().skip(at).for_each(|(p, _)| *p = p.saturating_sub(1));
            simpler.choices.dedup_by_key(|(p, _)| *p);
            if !self.keep(simpler) {
                at += 1;
            }
        }
    }

    fn lower_choices(&mut self) {
        for at in 0..self.best.len() {
            let Some(&(_, choice)) = self.best.choices.get(at) else { return };
            for lower in 1..choice.min(4) {
                let mut simpler = self.best.clone();
                simpler.choices[at].1 = lower;
                if self.keep(simpler) {
                    break;
                }
            }
        }
    }
}
