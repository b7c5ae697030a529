//! flotilla.engine.v1.

use flotilla_proto::engine::flotilla::engine::v1 as engine;
use tokio_stream::StreamExt;

use crate::fixture::start;
use crate::image;

#[tokio::test]
async fn single_container_runs_logs_and_goes() {
    let Some(runtime) = start("single_container_runs_logs_and_goes") else { return };
    let mut cri = runtime.client();
    let mut client = engine::engine_client::EngineClient::new(cri.channel.clone());
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let request = engine::CreateRequest {
        name: "job".into(),
        image: image::NAME.into(),
        entrypoint: vec![
            "sh".into(),
            "-c".into(),
            "echo one; echo two; read x < /tmp/none; sleep 0.2; echo $WHO; exit 9".into(),
        ],
        env: [("WHO".to_owned(), "me".to_owned())].into(),
        memory_limit: 64 << 20,
        pids_limit: 50,
        ..Default::default()
    };
    let id = client.run(request.clone()).await.unwrap().into_inner().id;
    runtime.note_container(&id);
    assert!(client.run(request).await.unwrap_err().message().contains("is reserved"));
    let follow = engine::LogsRequest { id: "job".into(), follow: true, tail: None };
    let mut lines = client.logs(follow).await.unwrap().into_inner();
    let mut texts = Vec::new();
    while let Some(line) = lines.next().await {
        let line = line.unwrap();
        if line.stream == "stdout" {
            texts.push(String::from_utf8_lossy(&line.text).into_owned());
        }
    }
    assert_eq!(texts, ["one", "two", "me"]);
    let code = client
        .wait(engine::WaitRequest { id: id[..10].into() })
        .await
        .unwrap()
        .into_inner()
        .exit_code;
    assert_eq!(code, 9);
    let all = client.list(engine::ListRequest { all: true }).await.unwrap().into_inner().containers;
    assert_eq!(
        (all[0].state.as_str(), all[0].name.as_str(), all[0].exit_code),
        ("exited", "job", 9)
    );
    assert!(
        client
            .list(engine::ListRequest { all: false })
            .await
            .unwrap()
            .into_inner()
            .containers
            .is_empty()
    );
    assert!(cri.sandboxes().await.is_empty(), "kubelet must not see engine containers");
    client.remove(engine::RemoveRequest { id: "job".into(), force: false }).await.unwrap();

    let request = engine::CreateRequest {
        name: "srv".into(),
        image: image::NAME.into(),
        command: words("sleep 1000"),
        ..Default::default()
    };
    let id = client.run(request).await.unwrap().into_inner().id;
    runtime.note_container(&id);
    let exec = engine::ExecRequest { id: "srv".into(), command: words("echo hi"), timeout: 5 };
    assert_eq!(&client.exec(exec).await.unwrap().into_inner().stdout[..], b"hi\n");
    let stats = client.stats(engine::StatsRequest { id: "srv".into() }).await.unwrap().into_inner();
    assert!(stats.memory_usage > 0 && stats.cpu_nanos > 0, "{stats:?}");
    let refused =
        client.remove(engine::RemoveRequest { id: "srv".into(), force: false }).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    client.stop(engine::StopRequest { id: "srv".into(), timeout: Some(0) }).await.unwrap();
    assert_eq!(
        client
            .inspect(engine::InspectRequest { id: "srv".into() })
            .await
            .unwrap()
            .into_inner()
            .exit_code,
        137
    );
    client.remove(engine::RemoveRequest { id: "srv".into(), force: false }).await.unwrap();
    runtime.finish().await;
}
