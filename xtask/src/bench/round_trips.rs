//! Sequential AWS round trips: the longest chain of requests in which each began after the one before had its answer.

use std::time::Duration;

use serde::Serialize;

use super::Bench;
use super::artifacts::Contender;
use super::emulator::Function;
use super::error::BenchError;
use super::load::Call;
use super::stage;

/// The service that holds the ledger.
const LEDGER: &str = "dynamodb";

/// The chains of one function on one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Chain {
    /// Whose.
    pub(super) function: String,
    /// Which: a cold or a warm start.
    pub(super) path: &'static str,
    /// From the event to the first mutating call on the target, that call included.
    pub(super) to_first_mutation: usize,
    /// Of those before the mutating call, the longest chain on the ledger alone.
    pub(super) on_ledger: usize,
    /// From the event to the function's answer.
    pub(super) to_answer: usize,
    /// Requests in all.
    pub(super) requests: usize,
    /// The requests in the order in which they began.
    pub(super) sequence: Vec<String>,
}

impl Chain {
    /// Whether it is that of a cold start.
    pub(super) fn is_cold(&self) -> bool {
        self.path == COLD
    }
}

const COLD: &str = "cold";
/// From one event to the next. Sooner, a function's own limit on control-plane calls holds some back, which then look
/// like calls that waited for an answer.
const APART: Duration = Duration::from_secs(2);

/// Counts each function's round trips, of a cold start and of a second event in the same process.
pub(super) async fn measure(bench: &Bench, latency_ms: u32) -> Result<Vec<Chain>, BenchError> {
    bench.progress.say("round trips");
    let server = &bench.server;
    let latency = Duration::from_millis(latency_ms.into());
    let environment = stage::environment(&server.endpoint());
    let mut chains = Vec::new();
    for Contender { program, play } in bench.contenders.functions() {
        let mut function = Function::start(&bench.emulator, program, &environment).await?;
        for path in [COLD, "warm"] {
            let scene = play.scene().logged(latency);
            server.seed(&scene).await?;
            let answer = function.invoke(&scene.event()).await?;
            stage::acted(&program.name, &answer)?;
            server.verify(&program.name, &scene).await?;
            let calls = server.log().await?;
            chains.push(chain(path, &program.name, &play.mutation, &calls)?);
            tokio::time::sleep(APART).await;
        }
    }
    Ok(chains)
}

fn chain(
    path: &'static str,
    by: &str,
    mutation: &str,
    calls: &[Call],
) -> Result<Chain, BenchError> {
    let mut calls = calls.to_vec();
    calls.sort_by_key(|call| call.start_us);
    let first_mutation = calls
        .iter()
        .find(|call| call.name() == mutation)
        .ok_or_else(|| BenchError::NothingDone {
            by: by.to_owned(),
            mutation: mutation.to_owned(),
        })?;
    let before = |call: &&Call| call.end_us <= first_mutation.start_us;
    Ok(Chain {
        function: by.to_owned(),
        path,
        to_first_mutation: longest_chain(calls.iter().filter(before)) + 1,
        on_ledger: longest_chain(
            calls
                .iter()
                .filter(before)
                .filter(|call| call.service == LEDGER),
        ),
        to_answer: longest_chain(calls.iter()),
        requests: calls.len(),
        sequence: calls.iter().map(Call::name).collect(),
    })
}

/// How many requests can be picked of which no two overlap: taking the one that ends first is the best choice.
fn longest_chain<'a>(calls: impl Iterator<Item = &'a Call>) -> usize {
    let mut calls: Vec<_> = calls.collect();
    calls.sort_by_key(|call| call.end_us);
    let mut free_from = 0;
    let mut length = 0;
    for call in calls {
        if call.start_us >= free_from {
            length += 1;
            free_from = call.end_us;
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEND: &str = "sqs.SendMessageBatch";

    fn call(service: &str, operation: &str, start_us: u64, end_us: u64) -> Call {
        Call {
            service: service.to_owned(),
            operation: operation.to_owned(),
            start_us,
            end_us,
        }
    }

    #[test]
    fn requests_side_by_side_count_once() {
        let calls = [
            call("ssm", "GetParameter", 0, 20),
            call("dynamodb", "BatchGetItem", 25, 45),
            call("monitoring", "DescribeAlarms", 26, 46),
            call("sqs", "GetQueueAttributes", 26, 47),
            call("dynamodb", "TransactWriteItems", 50, 70),
            call("sqs", "ReceiveMessage", 72, 92),
            call("sqs", "SendMessageBatch", 95, 115),
            call("sqs", "DeleteMessageBatch", 116, 136),
            call("dynamodb", "TransactWriteItems", 140, 160),
        ];
        let chain = chain(COLD, "f", SEND, &calls).unwrap();
        assert_eq!(chain.to_first_mutation, 5);
        assert_eq!(chain.on_ledger, 2);
        assert_eq!(chain.to_answer, 7);
        assert_eq!(chain.requests, 9);
    }

    #[test]
    fn a_long_request_does_not_hide_the_chain_beside_it() {
        let calls = [
            call("sqs", "ReceiveMessage", 0, 100),
            call("dynamodb", "GetItem", 0, 20),
            call("dynamodb", "GetItem", 21, 40),
            call("sqs", "SendMessageBatch", 101, 120),
        ];
        assert_eq!(
            chain("warm", "f", SEND, &calls).unwrap().to_first_mutation,
            3
        );
    }

    #[test]
    fn a_run_that_changes_nothing_is_an_error() {
        assert!(chain(COLD, "f", SEND, &[]).is_err());
    }
}
