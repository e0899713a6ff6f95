//! Watches: each stream is a task that looks at the store whenever it has changed.

use std::collections::BTreeMap;

use ferrite_api::pb::etcdserverpb as pb;
use pb::watch_request::RequestUnion;
use pb::watch_server::Watch;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::Service;

/// The id in answers that belong to no watch.
const NO_WATCH: i64 = -1;

struct Watcher {
    create: pb::WatchCreateRequest,
    /// The next revision to look at.
    next: i64,
}

/// The watches of one stream.
struct Watchers {
    service: Service,
    watchers: BTreeMap<i64, Watcher>,
    next_id: i64,
}

#[tonic::async_trait]
impl Watch for Service {
    type WatchStream = ReceiverStream<Result<pb::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.on("Watch", &request)?;
        let (sender, answers) = mpsc::channel(16);
        let mut watchers = Watchers {
            service: self.clone(),
            watchers: BTreeMap::new(),
            next_id: 0,
        };
        let mut changes = self.revision.subscribe();
        let mut breaks = self.breaks.subscribe();
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            loop {
                let answers = tokio::select! {
                    request = requests.message() => match request {
                        Ok(Some(request)) => watchers.handle(request),
                        _ => return,
                    },
                    Ok(()) = changes.changed() => watchers.catch_up(),
                    Ok(status) = breaks.recv() => {
                        let _ = sender.send(Err(status)).await;
                        return;
                    }
                };
                for answer in answers {
                    if sender.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

impl Watchers {
    fn answer(&self, watch_id: i64) -> pb::WatchResponse {
        pb::WatchResponse {
            header: self.service.header(self.service.store().revision()),
            watch_id,
            ..Default::default()
        }
    }

    fn handle(&mut self, request: pb::WatchRequest) -> Vec<pb::WatchResponse> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create),
            Some(RequestUnion::CancelRequest(cancel)) => {
                let id = cancel.watch_id;
                if self.watchers.remove(&id).is_none() {
                    return Vec::new();
                }
                vec![pb::WatchResponse {
                    canceled: true,
                    ..self.answer(id)
                }]
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                let mut answers = self.catch_up();
                if !self.watchers.is_empty() {
                    answers.push(self.answer(NO_WATCH));
                }
                answers
            }
            None => Vec::new(),
        }
    }

    fn create(&mut self, create: pb::WatchCreateRequest) -> Vec<pb::WatchResponse> {
        let end = &create.range_end;
        if !end.is_empty() && end.as_ref() != [0] && create.key >= end {
            return vec![pb::WatchResponse {
                created: true,
                canceled: true,
                cancel_reason: "mvcc: watcher range is empty".to_owned(),
                ..self.answer(NO_WATCH)
            }];
        }
        let id = self.next_id;
        self.next_id += 1;
        let created = pb::WatchResponse {
            created: true,
            ..self.answer(id)
        };
        let next = match create.start_revision {
            0 => self.service.store().revision() + 1,
            start => start,
        };
        self.watchers.insert(id, Watcher { create, next });
        let mut answers = vec![created];
        answers.extend(self.catch_up());
        answers
    }

    /// Everything that the watches have not had.
    fn catch_up(&mut self) -> Vec<pb::WatchResponse> {
        let store = self.service.store();
        let mut answers = Vec::new();
        let mut compacted = Vec::new();
        for (&id, watcher) in &mut self.watchers {
            if watcher.next < store.compacted() {
                compacted.push(id);
                continue;
            }
            while watcher.next <= store.revision() {
                let revision = watcher.next;
                watcher.next += 1;
                let events = store.events(revision, &watcher.create);
                if events.is_empty() {
                    continue;
                }
                let mut parts: Vec<Vec<_>> = vec![events];
                if watcher.create.fragment {
                    parts = parts
                        .remove(0)
                        .into_iter()
                        .map(|event| vec![event])
                        .collect();
                }
                let last = parts.len() - 1;
                for (index, events) in parts.into_iter().enumerate() {
                    answers.push(pb::WatchResponse {
                        header: self.service.header(revision),
                        watch_id: id,
                        fragment: index < last,
                        events,
                        ..Default::default()
                    });
                }
            }
        }
        for id in compacted {
            self.watchers.remove(&id);
            answers.push(pb::WatchResponse {
                header: self.service.header(0),
                watch_id: id,
                canceled: true,
                compact_revision: store.compacted(),
                ..Default::default()
            });
        }
        answers
    }
}
