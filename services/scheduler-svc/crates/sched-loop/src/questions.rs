//! Questions from outside: `flotilla.scheduler.v1`.

use std::collections::HashMap;
use std::sync::Arc;

use flotilla_proto::scheduler::flotilla::scheduler::v1 as wire;
use parking_lot::Mutex;
use sched_core::spec::Pod;
use sched_core::{Engine, NodeView, PodInfo};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status};
use wire::explain_request::Pod as Named;
use wire::scheduler_server::{Scheduler, SchedulerServer};

/// Bytes a pod in a question may have.
const MAX_POD: usize = 2 << 20;
/// Copies one simulation may place.
const MAX_COPIES: u32 = 100_000;

/// A question to the running scheduler: which pod, and a copy of the cluster to think with.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) pod: Asked,
    pub(crate) answer: oneshot::Sender<Result<(Box<Engine>, Arc<PodInfo>), String>>,
}

/// How the question names the pod.
#[derive(Debug)]
pub(crate) enum Asked {
    /// `NAMESPACE/NAME`
    Name(String),
    /// An object.
    Pod(Box<Pod>),
}

/// Where questions reach the scheduler while it leads. Cloning is cheap.
#[derive(Debug, Clone, Default)]
pub struct Handle {
    questions: Arc<Mutex<Option<mpsc::Sender<Question>>>>,
}

impl Handle {
    /// The gRPC service; it answers UNAVAILABLE while the scheduler does not run.
    pub fn grpc_service(&self) -> SchedulerServer<Questions> {
        SchedulerServer::new(Questions(self.clone())).max_decoding_message_size(2 * MAX_POD)
    }

    /// Encoded descriptors of the service, for reflection.
    pub fn descriptors() -> &'static [u8] {
        flotilla_proto::scheduler::FILE_DESCRIPTOR_SET
    }

    pub(crate) fn open(&self) -> mpsc::Receiver<Question> {
        let (sender, receiver) = mpsc::channel(16);
        *self.questions.lock() = Some(sender);
        receiver
    }

    pub(crate) fn close(&self) {
        *self.questions.lock() = None;
    }

    async fn ask(&self, pod: Asked) -> Result<(Box<Engine>, Arc<PodInfo>), Status> {
        let sender = self.questions.lock().clone();
        let away = || Status::unavailable("the scheduler is not running or does not lead");
        let sender = sender.ok_or_else(away)?;
        let (answer, receiver) = oneshot::channel();
        sender.send(Question { pod, answer }).await.map_err(|_| away())?;
        receiver.await.map_err(|_| away())?.map_err(Status::not_found)
    }
}

/// The service.
#[derive(Debug, Clone)]
pub struct Questions(Handle);

#[tonic::async_trait]
impl Scheduler for Questions {
    async fn explain(
        &self,
        request: Request<wire::ExplainRequest>,
    ) -> Result<Response<wire::ExplainResponse>, Status> {
        let asked = match request.into_inner().pod {
            Some(Named::Name(name)) if name.contains('/') => Asked::Name(name),
            Some(Named::Name(_)) => return Err(Status::invalid_argument("name is NAMESPACE/NAME")),
            Some(Named::Json(json)) => Asked::Pod(Box::new(parse(&json)?)),
            None => return Err(Status::invalid_argument("give name or json")),
        };
        let (mut engine, mut pod) = self.0.ask(asked).await?;
        let answer = tokio::task::spawn_blocking(move || {
            if engine.displace(&pod.uid).is_some() {
                // Asked of a pod that has a node: what if it had none.
                let mut free = (*pod).clone();
                free.node_name.clear();
                pod = Arc::new(free);
            }
            let nodes = engine.explain(&pod).into_iter().map(view).collect();
            match engine.schedule(&pod, 0) {
                Ok(choice) => {
                    wire::ExplainResponse { nodes, chosen: choice.node, message: String::new() }
                }
                Err(mut why) => {
                    engine.preempt(&pod, &mut why);
                    wire::ExplainResponse { nodes, chosen: String::new(), message: why.message() }
                }
            }
        });
        let answer = answer.await.map_err(|e| Status::internal(e.to_string()))?;
        Ok(Response::new(answer))
    }

    async fn simulate(
        &self,
        request: Request<wire::SimulateRequest>,
    ) -> Result<Response<wire::SimulateResponse>, Status> {
        let request = request.into_inner();
        let count = request.count;
        if !(1..=MAX_COPIES).contains(&count) {
            return Err(Status::invalid_argument(format!("count must be 1 to {MAX_COPIES}")));
        }
        let pod = parse(&request.pod_json)?;
        let (engine, pod) = self.0.ask(Asked::Pod(Box::new(pod))).await?;
        let answer = tokio::task::spawn_blocking(move || simulate(*engine, &pod, count));
        let answer = answer.await.map_err(|e| Status::internal(e.to_string()))?;
        Ok(Response::new(answer))
    }
}

fn parse(json: &str) -> Result<Pod, Status> {
    if json.len() > MAX_POD {
        return Err(Status::invalid_argument(format!("the pod exceeds {MAX_POD} bytes")));
    }
    serde_json::from_str(json).map_err(|e| Status::invalid_argument(format!("no pod: {e}")))
}

fn view(view: NodeView) -> wire::NodeExplanation {
    let (plugin, reasons) =
        view.rejection.map(|r| (r.plugin.to_owned(), r.reasons)).unwrap_or_default();
    let scores = view.scores.into_iter().map(|(name, score)| (name.to_owned(), score)).collect();
    wire::NodeExplanation { node: view.node, reasons, plugin, scores, total: view.total }
}

fn simulate(mut engine: Engine, pod: &PodInfo, count: u32) -> wire::SimulateResponse {
    let mut response = wire::SimulateResponse::default();
    let mut placements: HashMap<String, u32> = HashMap::new();
    for copy in 0..count {
        let mut next = pod.clone();
        next.uid = format!("simulated-{copy}");
        match engine.schedule(&next, u64::from(copy)) {
            Ok(choice) => {
                engine.place(Arc::new(next), &choice.node);
                *placements.entry(choice.node.clone()).or_default() += 1;
                response.nodes.push(choice.node);
            }
            Err(why) => {
                response.message = why.message();
                break;
            }
        }
    }
    response.placements = placements.into_iter().collect();
    response
}
