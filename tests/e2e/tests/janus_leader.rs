//! What the drivers of a Janus 0.7 leader do: their requests, header by header as they wrote them to this Worker, and
//! how they go on when an answer is late, lost, or given up.

use std::{sync::OnceLock, thread, time::Duration};

use daphne_core::{
    batch::BatchMode::{LeaderSelected, TimeInterval},
    error::ReportError::{self, BatchCollected, ReportReplayed},
    ids::{BatchId, ReportId},
    message::{BatchSelector, PartialBatchSelector},
    task::TaskSpec,
    vdaf::{Measurement, VdafConfig},
};
use e2e::{
    Answer, Books, JOB_CONTINUE, JOB_INIT, Job, SHARE_REQ, Server, World, raw::Connection,
    world::until_final,
};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

/// A VDAF of one round and one of two, in both batch modes; reports are spread over some objects.
fn worlds() -> impl Iterator<Item = World> {
    [(TimeInterval, 1), (LeaderSelected, 1), (TimeInterval, 2), (LeaderSelected, 2)]
        .into_iter()
        .map(|(mode, rounds)| {
            println!("{mode:?}, {rounds} rounds");
            let mut world = World::new(server(), mode, |spec: &mut TaskSpec| {
                spec.shards = 3;
                if rounds == 2 {
                    spec.vdaf = VdafConfig::Poplar1 { bits: 8 };
                    spec.max_batch_query_count = 8;
                }
            });
            if rounds == 2 {
                world.ask_for(&["0", "1"]);
            }
            world
        })
}

fn rounds(world: &World) -> u8 {
    if world.agg_param.is_some() { 2 } else { 1 }
}

/// Four reports in the first two buckets.
fn four(world: &World) -> Vec<Vec<u8>> {
    (0_u64..4)
        .map(|n| {
            let measurement = match rounds(world) {
                1 => Measurement::Sum(n + 60),
                _ => Measurement::Poplar1(format!("{:08b}", n * 77).parse().expect("bits")),
            };
            world.report(measurement, world.time(n % 2))
        })
        .collect()
}

/// Where all reports of a test go.
fn place(world: &World) -> (PartialBatchSelector, BatchSelector) {
    match world.spec.batch_mode {
        TimeInterval => (PartialBatchSelector::TimeInterval, world.interval(0, 2)),
        LeaderSelected => {
            let id = BatchId::new([7; 32]);
            (PartialBatchSelector::LeaderSelected(id), BatchSelector::LeaderSelected(id))
        }
    }
}

/// How a task's token is presented; Janus calls the second kind `DapAuth`.
#[derive(Clone, Copy)]
enum Token {
    Bearer,
    DapAuth,
}

/// One of the leader's processes, with a connection that it keeps.
struct Driver<'w> {
    world: &'w World,
    name: &'static str,
    token: Token,
    connection: Connection,
}

impl<'w> Driver<'w> {
    fn new(world: &'w World, name: &'static str, token: Token) -> Self {
        Self { world, name, token, connection: Connection::to(&world.client) }
    }

    fn of_jobs(world: &'w World) -> Self {
        Self::new(world, "aggregation_job_driver", Token::Bearer)
    }

    fn of_collections(world: &'w World) -> Self {
        Self::new(world, "collection_job_driver", Token::Bearer)
    }

    /// A request as it was seen: these headers, so written, in this order, and no others. Nothing says of a `DELETE`
    /// that it has no body.
    fn send(&mut self, method: &str, path: &str, body: Option<(&str, &[u8])>) {
        let token = &self.world.token;
        let credentials = match self.token {
            Token::Bearer => format!("authorization: Bearer {token}"),
            Token::DapAuth => format!("dap-auth-token: {token}"),
        };
        let host = self.world.client.base().trim_start_matches("http://");
        let mut request = format!("{method} {path} HTTP/1.1\r\n{credentials}\r\n");
        if let Some((media_type, _)) = body {
            request += &format!("content-type: {media_type}\r\n");
        }
        request += &format!(
            "accept: */*\r\nuser-agent: janus_aggregator/0.7.135/{}\r\nhost: {host}\r\n",
            self.name
        );
        let body = body.map(|(_, body)| body);
        if let Some(body) = body {
            request += &format!("content-length: {}\r\n", body.len());
        }
        request += "\r\n";
        self.connection.send([request.as_bytes(), body.unwrap_or_default()].concat());
    }

    /// The answer to what was sent last. It says how long it is: where an answer breaks off, this leader must notice.
    #[track_caller]
    fn answer(&mut self) -> Answer {
        let answer = self.connection.answer().expect("the connection is kept");
        if answer.status != 204 {
            assert_eq!(answer.header("content-length"), answer.body.len().to_string());
        }
        assert_eq!(answer.header("transfer-encoding"), "");
        assert_ne!(answer.header("connection"), "close");
        answer
    }

    #[track_caller]
    fn ask(&mut self, method: &str, path: &str, body: Option<(&str, &[u8])>) -> Answer {
        self.send(method, path, body);
        self.answer()
    }

    /// Begins a job and, if the VDAF has two rounds, continues it. Returns what was refused.
    #[track_caller]
    fn run(&mut self, job: Job, books: &mut Books) -> Vec<(ReportId, ReportError)> {
        let path = self.world.job_path(&job.id);
        let first = self.ask("PUT", &path, Some((JOB_INIT, &job.body)));
        if rounds(self.world) == 1 {
            return self.world.finish(job, &first, books);
        }
        let job = self.world.proceed(job, &first);
        let last = self.ask("POST", &path, Some((JOB_CONTINUE, &job.body)));
        self.world.finish_continued(job, &last, books)
    }

    /// Gives a job up.
    #[track_caller]
    fn give_up(&mut self, path: &str) {
        let deleted = self.ask("DELETE", path, None);
        assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    }
}

#[test]
fn a_batch_needs_one_connection_of_each_driver() {
    for world in worlds() {
        for (n, token) in [Token::Bearer, Token::DapAuth].into_iter().enumerate() {
            let (part, batch) = match place(&world) {
                // A batch of its own for each round of this test.
                (PartialBatchSelector::LeaderSelected(_), _) => {
                    let id = BatchId::new([n as u8; 32]);
                    (PartialBatchSelector::LeaderSelected(id), BatchSelector::LeaderSelected(id))
                }
                (part, _) => (part, world.interval(n as u64, 1)),
            };
            let reports: Vec<_> = (0..6)
                .map(|k| {
                    let measurement = match rounds(&world) {
                        1 => Measurement::Sum(k),
                        _ => Measurement::Poplar1(format!("{k:08b}").parse().expect("bits")),
                    };
                    world.report(measurement, world.time(n as u64))
                })
                .collect();
            let mut driver = Driver::new(&world, "aggregation_job_driver", token);
            let mut books = Books::default();
            for reports in [&reports[..2], &reports[2..4]] {
                assert_eq!(driver.run(world.job(part, reports), &mut books), []);
            }
            let given_up = world.job(part, &reports[4..]);
            let path = world.job_path(&given_up.id);
            let body = Some((JOB_INIT, given_up.body.as_slice()));
            driver.ask("PUT", &path, body).ok("application/dap-aggregation-job-resp");
            driver.give_up(&path);
            let mut driver = Driver::new(&world, "collection_job_driver", token);
            let request = world.share_request(batch, &books);
            let share = driver.ask("POST", &world.shares_path(), Some((SHARE_REQ, &request)));
            world.assert_true(batch, &books, &share);
            // The collector asked for a second collection of the batch, because the first was given up.
            let again = driver.ask("POST", &world.shares_path(), Some((SHARE_REQ, &request)));
            assert_eq!(again.body, share.body);
        }
    }
}

/// The leader hangs up while it waits, and sends the same bytes on another connection when its lease has ended. The
/// runtime stops what it does for whoever hung up, wherever that is.
#[test]
fn whoever_hangs_up_and_comes_again_is_counted_once() {
    for world in worlds() {
        let (part, batch) = place(&world);
        let hang_up = |method: &str, path: &str, body: (&str, &[u8])| {
            for patience in [0, 1, 2, 4, 8, 16, 32] {
                Driver::of_jobs(&world).send(method, path, Some(body));
                thread::sleep(Duration::from_millis(patience));
            }
        };
        let again = |method: &str, path: &str, body: (&str, &[u8])| {
            until_final(|| Driver::of_jobs(&world).ask(method, path, Some(body)))
        };
        let job = world.job(part, &four(&world));
        let path = world.job_path(&job.id);
        let init = job.body.clone();
        hang_up("PUT", &path, (JOB_INIT, &init));
        let first = again("PUT", &path, (JOB_INIT, &init));
        let mut books = Books::default();
        if rounds(&world) == 1 {
            assert_eq!(world.finish(job, &first, &mut books), []);
        } else {
            let job = world.proceed(job, &first);
            let body = job.body.clone();
            hang_up("POST", &path, (JOB_CONTINUE, &body));
            let last = again("POST", &path, (JOB_CONTINUE, &body));
            assert_eq!(world.finish_continued(job, &last, &mut books), []);
        }
        let request = world.share_request(batch, &books);
        let path = world.shares_path();
        hang_up("POST", &path, (SHARE_REQ, &request));
        let share = again("POST", &path, (SHARE_REQ, &request));
        world.assert_true(batch, &books, &share);
    }
}

/// An answer that takes longer than the lease: two drivers do the same at once, in each round.
#[test]
fn two_drivers_with_one_job_get_one_answer() {
    for world in worlds() {
        let (part, batch) = place(&world);
        let both = |method: &str, path: &str, body: (&str, &[u8])| {
            let [mut one, mut other] = [(); 2].map(|()| Driver::of_jobs(&world));
            one.send(method, path, Some(body));
            other.send(method, path, Some(body));
            let again = || Driver::of_jobs(&world).ask(method, path, Some(body));
            let answers = [one.answer(), other.answer()]
                .map(|answer| if answer.is_temporary() { until_final(again) } else { answer });
            assert_eq!(answers[0].body, answers[1].body);
            answers[0].clone()
        };
        let job = world.job(part, &four(&world));
        let (path, init) = (world.job_path(&job.id), job.body.clone());
        let first = both("PUT", &path, (JOB_INIT, &init));
        let mut books = Books::default();
        if rounds(&world) == 1 {
            assert_eq!(world.finish(job, &first, &mut books), []);
        } else {
            let job = world.proceed(job, &first);
            let last = both("POST", &path, (JOB_CONTINUE, &job.body.clone()));
            assert_eq!(world.finish_continued(job, &last, &mut books), []);
        }
        world.collect(batch, &books);
    }
}

/// Attempts end, and the job is given up for good: Janus puts its reports into no other. What the helper knows of it may
/// be anything, and the `DELETE` may have been lost.
#[test]
fn jobs_given_up_at_any_point_are_left_out() {
    for world in worlds() {
        let (part, batch) = place(&world);
        let mut driver = Driver::of_jobs(&world);
        let mut books = Books::default();
        assert_eq!(driver.run(world.job(part, &four(&world)), &mut books), []);
        for deleted in [true, false] {
            for answered in 0..=rounds(&world) {
                let job = world.job(part, &four(&world));
                let path = world.job_path(&job.id);
                if answered > 0 {
                    let first = driver.ask("PUT", &path, Some((JOB_INIT, &job.body)));
                    if answered > 1 {
                        let job = world.proceed(job, &first);
                        let last = driver.ask("POST", &path, Some((JOB_CONTINUE, &job.body)));
                        world.job_resp(&last);
                    }
                }
                if deleted {
                    driver.give_up(&path);
                }
            }
        }
        assert_eq!(driver.run(world.job(part, &four(&world)), &mut books), []);
        let request = world.share_request(batch, &books);
        let mut driver = Driver::of_collections(&world);
        let share =
            until_final(|| driver.ask("POST", &world.shares_path(), Some((SHARE_REQ, &request))));
        world.assert_true(batch, &books, &share);
    }
}

/// The leader's database was restored from a backup: jobs that it finished since never were, and their reports come in
/// new jobs. They are replays, and what it remembers is what the batch holds.
#[test]
fn a_leader_that_forgot_its_last_jobs_collects_the_others() {
    for world in worlds() {
        let (part, batch) = place(&world);
        let mut driver = Driver::of_jobs(&world);
        let mut books = Books::default();
        assert_eq!(driver.run(world.job(part, &four(&world)), &mut books), []);
        let forgotten = four(&world);
        assert_eq!(driver.run(world.job(part, &forgotten), &mut books.clone()), []);
        // Together with reports that came after the restoration.
        let new = four(&world);
        let job = world.job(part, &[&forgotten[..], &new[..]].concat());
        let refused = driver.run(job, &mut books);
        assert_eq!(refused.len(), forgotten.len());
        assert!(refused.iter().all(|(_, error)| *error == ReportReplayed), "{refused:?}");
        world.collect(batch, &books);
        let late = world.run(world.job(part, &forgotten), &mut books.clone());
        assert_eq!(late.len(), forgotten.len());
        assert!(late.iter().all(|(_, e)| [BatchCollected, ReportReplayed].contains(e)), "{late:?}");
    }
}
