//! A proxy between a program and the emulator that hurts chosen calls the way AWS and networks do, and writes down all
//! that passed.
//!
//! Requests are forwarded as they were signed, `Host` included, so that the emulator still checks every signature.
//! A request that has arrived whole is carried out even if its client is killed meanwhile, as a service would.

mod call;
mod fault;
mod reply;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use shared::clock::Clock;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

pub use call::{Call, Protocol};
pub use fault::{EntryFailure, Fault, Gate, Hold, Phase, Rule};
pub use reply::Reply;

use crate::cloud::{Clients, Cloud, credentials};
use crate::failure::{Failure, Result};
use crate::limits;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is still on its way.
    InProgress,
    /// It was answered with this status.
    Answered(u16),
    /// Its connection was reset.
    Cut,
}

/// A request in the journal.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The request.
    pub call: Call,
    /// What became of it.
    pub fate: Fate,
    /// Whether the emulator carried it out: it was forwarded and answered with success.
    pub effect: bool,
    /// Whether a fault or a gate was laid on it.
    pub faulted: bool,
    /// When it had arrived, from the start of the proxy.
    pub arrived: Duration,
    /// When it was answered or cut, from the start of the proxy.
    pub ended: Option<Duration>,
}

impl Entry {
    /// Whether it took effect without the client hearing so.
    #[must_use]
    pub fn lost_its_answer(&self) -> bool {
        self.effect && !matches!(self.fate, Fate::Answered(200..=299))
    }
}

/// A point of a run at which it can be killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// The request's action.
    pub action: String,
    /// Which of the requests of that action, from one.
    pub nth: usize,
    /// Before or after its effect.
    pub phase: Phase,
}

/// A message's last known receipt handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The queue it was received from.
    pub queue_url: String,
    /// The handle.
    pub handle: String,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    gates: Vec<fault::PendingGate>,
    journal: Vec<Entry>,
    /// By message id.
    receipts: HashMap<String, Receipt>,
    /// Every receipt handle that the emulator gave out.
    issued: HashSet<String>,
    maximum_message_sizes: HashMap<String, usize>,
}

struct Shared {
    cloud: Cloud,
    authority: String,
    sqs: aws_sdk_sqs::Client,
    client: Client<HttpConnector, Full<Bytes>>,
    started: Instant,
    state: Mutex<State>,
    in_progress: watch::Sender<usize>,
}

/// The connection is to be reset.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection is cut on purpose")
    }
}

impl std::error::Error for Cut {}

/// An answer of the emulator.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// A running proxy; it stops when dropped.
pub struct Proxy {
    endpoint: String,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Proxy {
    /// Starts a proxy in front of a cloud, on a free port of this machine.
    pub async fn start(cloud: &Cloud) -> Result<Self> {
        let authority = cloud
            .endpoint
            .strip_prefix("http://")
            .ok_or_else(|| {
                Failure::new(format!("{} is not a plain http endpoint", cloud.endpoint))
            })?
            .trim_end_matches('/')
            .to_owned();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared {
            sqs: Clients::of(cloud).await.sqs,
            cloud: cloud.clone(),
            authority,
            // A pooled connection that the emulator closes while idle would look like a fault nobody asked for.
            client: Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(0)
                .build_http(),
            started: Instant::now(),
            state: Mutex::default(),
            in_progress: watch::Sender::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self {
            endpoint,
            shared,
            accepting,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Lays a rule; of several rules that choose one request, the first laid serves.
    pub fn inject(&self, rule: Rule) {
        self.shared.state().rules.push(rule);
    }

    /// Takes all rules and gates away.
    pub fn heal(&self) {
        let mut state = self.shared.state();
        state.rules.clear();
        state.gates.clear();
    }

    /// Stops the `nth` request, counted from now and from one, that a pattern such as `sqs:SendMessage*` names.
    #[must_use]
    pub fn gate(&self, pattern: &str, nth: usize, phase: Phase) -> Gate {
        let (gate, pending) = Gate::new(pattern, nth, phase);
        self.shared.state().gates.push(pending);
        gate
    }

    /// All that passed, in order of arrival.
    #[must_use]
    pub fn journal(&self) -> Vec<Entry> {
        self.shared.state().journal.clone()
    }

    /// The requests that a pattern such as `sqs:SendMessage*` names, in order of arrival.
    #[must_use]
    pub fn calls(&self, pattern: &str) -> Vec<Entry> {
        let mut journal = self.journal();
        journal.retain(|entry| entry.call.is(pattern));
        journal
    }

    /// Every point at which the program could have died: before and after the effect of each request that passed.
    #[must_use]
    pub fn deaths(&self) -> Vec<Death> {
        let mut asked = BTreeMap::new();
        let mut deaths = Vec::new();
        for entry in self.journal() {
            let action = entry.call.action();
            let nth: &mut usize = asked.entry(action.clone()).or_default();
            *nth += 1;
            deaths.extend(
                [Phase::BeforeEffect, Phase::AfterEffect].map(|phase| Death {
                    action: action.clone(),
                    nth: *nth,
                    phase,
                }),
            );
        }
        deaths
    }

    /// The last known receipt handle of each message that was received through this proxy.
    #[must_use]
    pub fn receipts(&self) -> Vec<Receipt> {
        self.shared.state().receipts.values().cloned().collect()
    }

    /// Waits until no request is on its way.
    pub async fn idle(&self) -> Result {
        self.shared
            .in_progress
            .subscribe()
            .wait_for(|count| *count == 0)
            .await?;
        Ok(())
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, Arc::clone(&shared)));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(move |request| {
        let handling = tokio::spawn(Arc::clone(&shared).handle(request));
        Box::pin(async move { handling.await.unwrap_or(Err(Cut)) })
            as Pin<Box<dyn Future<Output = std::result::Result<_, Cut>> + Send>>
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let ended = std::future::poll_fn(|context| connection.poll_without_shutdown(context)).await;
    let stream = connection.into_parts().io.into_inner();
    if ended.is_err() {
        // Without lingering, the close is a reset: the client's read fails at once instead of ending in order.
        let _ = stream.set_zero_linger();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> std::result::Result<Response<Full<Bytes>>, Cut> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
        self.in_progress.send_modify(|count| *count += 1);
        let (call, fault, gate) = self.admit(Call::read(&parts, body));
        let mut effect = false;
        let answer = self.carry_out(&call, fault, gate, &mut effect).await;
        self.close(
            call.number,
            effect,
            answer.as_ref().ok().map(|answer| answer.status),
        );
        self.in_progress.send_modify(|count| *count -= 1);
        let answer = answer?;
        let mut response = Response::new(Full::new(answer.body));
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        Ok(response)
    }

    /// Numbers a request, writes it down, and finds what is to be done to it.
    fn admit(&self, mut call: Call) -> (Call, Option<Fault>, Option<fault::PendingGate>) {
        let mut state = self.state();
        call.number = state.journal.len() + 1;
        let mut chosen = None;
        for rule in &mut state.rules {
            let fault = rule.choose(&call);
            if chosen.is_none() {
                chosen = fault;
            }
        }
        let mut reached = None;
        for (position, gate) in state.gates.iter_mut().enumerate() {
            if gate.stops(&call) {
                reached.get_or_insert(position);
            }
        }
        let gate = reached.map(|position| state.gates.remove(position));
        state.journal.push(Entry {
            call: call.clone(),
            fate: Fate::InProgress,
            effect: false,
            faulted: chosen.is_some() || gate.is_some(),
            arrived: self.started.elapsed(),
            ended: None,
        });
        (call, chosen, gate)
    }

    fn close(&self, number: usize, effect: bool, status: Option<StatusCode>) {
        let ended = self.started.elapsed();
        if let Some(entry) = self.state().journal.get_mut(number - 1) {
            entry.fate = status.map_or(Fate::Cut, |status| Fate::Answered(status.as_u16()));
            entry.effect = effect;
            entry.ended = Some(ended);
        }
    }

    async fn carry_out(
        &self,
        call: &Call,
        fault: Option<Fault>,
        gate: Option<fault::PendingGate>,
        effect: &mut bool,
    ) -> std::result::Result<Answer, Cut> {
        if let Some(gate) = gate {
            if gate.phase == Phase::AfterEffect {
                self.forward(call, effect).await?;
            }
            gate.stop(call).await;
            return Err(Cut);
        }
        let Some(fault) = fault else {
            return self.forward(call, effect).await;
        };
        match fault {
            Fault::Reply(reply) => Ok(reply.answer(call)),
            Fault::ReplyAfterEffect(reply) => {
                self.forward(call, effect).await?;
                Ok(reply.answer(call))
            }
            Fault::Reset => Err(Cut),
            Fault::LoseAnswer => {
                self.forward(call, effect).await?;
                Err(Cut)
            }
            Fault::Delay(duration) => {
                tokio::time::sleep(duration).await;
                self.forward(call, effect).await
            }
            Fault::DelayAnswer(duration) => {
                let answer = self.forward(call, effect).await;
                tokio::time::sleep(duration).await;
                answer
            }
            Fault::FailEntries(failure) => {
                let failed = call
                    .entries()
                    .iter()
                    .enumerate()
                    .filter(|(index, entry)| failure.chooses(*index, entry))
                    .filter_map(|(_, entry)| {
                        Some((entry["Id"].as_str()?.to_owned(), failure.clone()))
                    })
                    .collect();
                self.forward_without(call, failed, effect).await
            }
            Fault::Hold(hold) => {
                hold.park().await;
                self.forward(call, effect).await
            }
        }
    }

    /// Forwards a request as it is, except that what AWS would refuse is refused.
    async fn forward(&self, call: &Call, effect: &mut bool) -> std::result::Result<Answer, Cut> {
        match (call.service, call.operation.as_str()) {
            ("sqs", "SendMessage") => {
                let message = call.json();
                let maximum = self.maximum_message_size(call).await;
                if let Some(refusal) = maximum.and_then(|maximum| limits::refuse(&message, maximum))
                {
                    return Ok(Reply::error(400, refusal.code, refusal.message).answer(call));
                }
            }
            ("sqs", "SendMessageBatch") => {
                if let Some(refusal) = limits::refuse_batch(&call.entries()) {
                    return Ok(Reply::error(400, refusal.code, refusal.message).answer(call));
                }
                if self.maximum_message_size(call).await.is_some() {
                    return self.forward_without(call, BTreeMap::new(), effect).await;
                }
            }
            ("apigateway", "UpdateStage") => {
                let operations = call.json()["patchOperations"]
                    .as_array()
                    .map_or(0, Vec::len);
                if let Some(refusal) = limits::refuse_patches(operations) {
                    return Ok(Reply::error(400, refusal.code, refusal.message).answer(call));
                }
            }
            _ => {}
        }
        self.send(call, call.headers.clone(), call.body.clone(), effect)
            .await
    }

    /// Forwards a batch without some of its entries, and answers those as `Failed`.
    async fn forward_without(
        &self,
        call: &Call,
        mut failed: BTreeMap<String, EntryFailure>,
        effect: &mut bool,
    ) -> std::result::Result<Answer, Cut> {
        let entries = call.entries();
        if call.operation == "SendMessageBatch"
            && let Some(maximum) = self.maximum_message_size(call).await
        {
            for (id, refusal) in limits::refused_entries(&entries, maximum) {
                failed
                    .entry(id)
                    .or_insert_with(|| EntryFailure::sender(refusal.code, refusal.message));
            }
        }
        if failed.is_empty() {
            return self
                .send(call, call.headers.clone(), call.body.clone(), effect)
                .await;
        }
        let (refused, kept): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| {
            entry["Id"]
                .as_str()
                .is_some_and(|id| failed.contains_key(id))
        });
        let mut result = json!({"Successful": [], "Failed": []});
        if !kept.is_empty() {
            let mut request = call.json();
            request["Entries"] = Value::Array(kept);
            let body = Bytes::from(request.to_string());
            let headers = self.signed(call, &body).map_err(|failure| {
                eprintln!("proxy: cannot sign {}: {failure}", call.action());
                Cut
            })?;
            let answer = self.send(call, headers, body, effect).await?;
            match serde_json::from_slice(&answer.body) {
                Ok(answered) if answer.status.is_success() => result = answered,
                _ => return Ok(answer),
            }
        }
        let words = refused.iter().filter_map(|entry| {
            let id = entry["Id"].as_str()?;
            let failure = failed.get(id)?;
            Some(json!({
                "Id": id,
                "Code": failure.code,
                "Message": failure.message,
                "SenderFault": failure.sender_fault,
            }))
        });
        match result["Failed"].as_array_mut() {
            Some(failed) => failed.extend(words),
            None => result["Failed"] = words.collect(),
        }
        Ok(Reply::success(200, result.to_string()).answer(call))
    }

    /// The queue's own limit, or `None` when the queue is not there.
    async fn maximum_message_size(&self, call: &Call) -> Option<usize> {
        let url = call.json()["QueueUrl"].as_str()?.to_owned();
        let known = self.state().maximum_message_sizes.get(&url).copied();
        if known.is_some() {
            return known;
        }
        let answer = self
            .sqs
            .get_queue_attributes()
            .queue_url(&url)
            .attribute_names(QueueAttributeName::MaximumMessageSize)
            .send()
            .await
            .ok()?;
        let size = answer
            .attributes()?
            .get(&QueueAttributeName::MaximumMessageSize)?
            .parse()
            .ok()?;
        self.state().maximum_message_sizes.insert(url, size);
        Some(size)
    }

    /// The headers of a request whose body was changed, signed anew by the operator.
    fn signed(&self, call: &Call, body: &[u8]) -> Result<HeaderMap> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("http://{}{}", call.host(), call.path))
            .body(())?;
        for name in [header::HOST, header::CONTENT_TYPE, "x-amz-target".parse()?] {
            if let Some(value) = call.headers.get(&name) {
                request.headers_mut().insert(name, value.clone());
            }
        }
        let identity = credentials(&self.cloud).into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.cloud.region)
            .name(call.service)
            .time(Clock::system().now().into())
            .settings(SigningSettings::default())
            .build()?
            .into();
        let uri = request.uri().to_string();
        let headers: Vec<_> = request
            .headers()
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
            .collect();
        let signable = SignableRequest::new(
            call.method.as_str(),
            uri,
            headers.into_iter(),
            SignableBody::Bytes(body),
        )?;
        let (instructions, _) = sign(signable, &parameters)?.into_parts();
        instructions.apply_to_request_http1x(&mut request);
        Ok(request.into_parts().0.headers)
    }

    async fn send(
        &self,
        call: &Call,
        mut headers: HeaderMap,
        body: Bytes,
        effect: &mut bool,
    ) -> std::result::Result<Answer, Cut> {
        // `Content-Length` stays: it can be among the signed headers.
        for hop_by_hop in [header::CONNECTION, header::TRANSFER_ENCODING] {
            headers.remove(hop_by_hop);
        }
        let mut answer = self
            .exchange(call, headers, body)
            .await
            .map_err(|failure| {
                eprintln!("proxy: {} was not forwarded: {failure}", call.action());
                Cut
            })?;
        *effect = answer.status.is_success();
        if call.is("sqs:ReceiveMessage") && *effect {
            self.note_receipts(call, &answer.body);
        }
        if call.is("sqs:DeleteMessageBatch") && *effect {
            self.forgive_late_deletes(call, &mut answer);
        }
        Ok(answer)
    }

    /// Answers the deletion of a message that is deleted already, or was received again since, as SQS does.
    ///
    /// "You must provide the most recently received `ReceiptHandle` for the message (otherwise, the request succeeds,
    /// but the message will not be deleted)" (Amazon SQS API Reference, `DeleteMessage`); the emulator refuses it.
    fn forgive_late_deletes(&self, call: &Call, answer: &mut Answer) {
        let handles: HashMap<String, String> = call
            .entries()
            .iter()
            .filter_map(|entry| {
                let text = |field: &str| entry[field].as_str().map(str::to_owned);
                Some((text("Id")?, text("ReceiptHandle")?))
            })
            .collect();
        let Ok(mut result) = serde_json::from_slice::<Value>(&answer.body) else {
            return;
        };
        let (Value::Array(failed), Value::Array(mut successful)) =
            (result["Failed"].take(), result["Successful"].take())
        else {
            return;
        };
        let state = self.state();
        let (late, failed): (Vec<_>, Vec<_>) = failed.into_iter().partition(|entry| {
            let handle = entry["Id"].as_str().and_then(|id| handles.get(id));
            entry["Code"] == "ReceiptHandleIsInvalid"
                && handle.is_some_and(|handle| state.issued.contains(handle))
        });
        successful.extend(late.iter().map(|entry| json!({"Id": entry["Id"]})));
        let result = json!({"Successful": successful, "Failed": failed});
        answer.body = result.to_string().into();
        answer.headers.remove(header::CONTENT_LENGTH);
    }

    async fn exchange(&self, call: &Call, headers: HeaderMap, body: Bytes) -> Result<Answer> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("http://{}{}", self.authority, call.path))
            .body(Full::new(body))?;
        *request.headers_mut() = headers;
        let (mut parts, body) = self.client.request(request).await?.into_parts();
        for hop_by_hop in [header::CONNECTION, header::TRANSFER_ENCODING] {
            parts.headers.remove(hop_by_hop);
        }
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await?.to_bytes(),
        })
    }

    fn note_receipts(&self, call: &Call, body: &[u8]) {
        let queue_url = call.json()["QueueUrl"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        let mut state = self.state();
        for message in answer["Messages"].as_array().into_iter().flatten() {
            if let (Some(id), Some(handle)) = (
                message["MessageId"].as_str(),
                message["ReceiptHandle"].as_str(),
            ) {
                let receipt = Receipt {
                    queue_url: queue_url.clone(),
                    handle: handle.to_owned(),
                };
                state.issued.insert(handle.to_owned());
                state.receipts.insert(id.to_owned(), receipt);
            }
        }
    }
}
