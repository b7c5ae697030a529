//! Exec, attach and port-forward over WebSocket.

use flotilla_proto::cri::runtime::v1 as cri;
use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::fixture::{container_config, sandbox_config, start};

async fn open(url: &str, protocol: &str) -> Result<WebSocketStream<TcpStream>, String> {
    let url = url.replace("http://", "ws://");
    let mut request = url.as_str().into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
    let address = url.trim_start_matches("ws://").split('/').next().unwrap().to_owned();
    let stream = TcpStream::connect(address).await.unwrap();
    let (socket, _) = tokio_tungstenite::client_async(request, stream)
        .await
        .map_err(|error| error.to_string())?;
    Ok(socket)
}

/// All output by channel until the end.
async fn collect(socket: &mut WebSocketStream<TcpStream>) -> [Vec<u8>; 4] {
    let mut all: [Vec<u8>; 4] = Default::default();
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Binary(bytes) = message {
            all[usize::from(bytes[0])].extend_from_slice(&bytes[1..]);
        }
    }
    all
}

#[tokio::test]
async fn remote_commands_work_over_websocket() {
    let Some(runtime) = start("remote_commands_work_over_websocket") else { return };
    let mut client = runtime.client();
    let sandbox = client.run_sandbox(sandbox_config("ws", runtime.dir.path())).await;
    let mut config =
        container_config("main", "while read x; do echo got $x; done; echo end; sleep 1000");
    (config.stdin, config.stdin_once) = (true, true);
    let id = client.run(&runtime, &sandbox, config).await;
    let exec = |script: &str, tty: bool| cri::ExecRequest {
        container_id: id.clone(),
        cmd: ["sh", "-c", script].map(str::to_owned).into(),
        tty,
        stdin: true,
        stdout: true,
        stderr: !tty,
    };
    let url = client
        .runtime
        .exec(exec("cat; echo err >&2; exit 4", false))
        .await
        .unwrap()
        .into_inner()
        .url;
    let mut socket = open(&url, "v5.channel.k8s.io").await.unwrap();
    socket.send(Message::binary(b"\0hello".to_vec())).await.unwrap();
    socket.send(Message::binary(vec![255, 0])).await.unwrap();
    let [_, stdout, stderr, status] = collect(&mut socket).await;
    assert_eq!((stdout.as_slice(), stderr.as_slice()), (&b"hello"[..], &b"err\n"[..]));
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "4");
    assert!(open(&url, "v5.channel.k8s.io").await.is_err(), "a token worked twice");

    let url = client
        .runtime
        .exec(exec("stty size; tty; read x; stty size; echo $x", true))
        .await
        .unwrap()
        .into_inner()
        .url;
    let mut socket = open(&url, "v4.channel.k8s.io").await.unwrap();
    socket.send(Message::binary(b"\x04{\"Width\":101,\"Height\":37}".to_vec())).await.unwrap();
    socket.send(Message::binary(b"\0typed\n".to_vec())).await.unwrap();
    let [_, stdout, _, status] = collect(&mut socket).await;
    let text = String::from_utf8_lossy(&stdout);
    assert!(text.contains("37 101") && text.contains("typed"), "{text}");
    assert!(String::from_utf8_lossy(&status).contains("Success"));

    let attach = cri::AttachRequest {
        container_id: id.clone(),
        stdin: true,
        tty: false,
        stdout: true,
        stderr: true,
    };
    let url = client.runtime.attach(attach).await.unwrap().into_inner().url;
    let mut socket = open(&url, "v5.channel.k8s.io").await.unwrap();
    socket.send(Message::binary(b"\0line\n".to_vec())).await.unwrap();
    let mut seen = String::new();
    while !seen.contains("got line") {
        let message = socket.next().await.unwrap().unwrap();
        seen += &String::from_utf8_lossy(&message.into_data()[1..]);
    }
    socket.send(Message::binary(vec![255, 0])).await.unwrap();
    while !seen.contains("end") {
        let message = socket.next().await.unwrap().unwrap();
        seen += &String::from_utf8_lossy(&message.into_data()[1..]);
    }
    drop(socket);
    let status = client.status(&id).await;
    assert_eq!(
        status.state(),
        cri::ContainerState::ContainerRunning,
        "detaching ended the container"
    );
    runtime.finish().await;
}

#[tokio::test]
async fn ports_are_forwarded_and_strangers_refused() {
    let Some(runtime) = start("ports_are_forwarded_and_strangers_refused") else { return };
    let mut client = runtime.client();
    let sandbox = client.run_sandbox(sandbox_config("fwd", runtime.dir.path())).await;
    let id = client
        .run(&runtime, &sandbox, container_config("main", "echo ready; nc -l -p 8080 -e cat"))
        .await;
    let path = client.status(&id).await.log_path;
    flotilla_testkit::eventually("nc listens", std::time::Duration::from_secs(5), || {
        !crate::fixture::log_lines(&path).is_empty()
    });
    let forward =
        |port| cri::PortForwardRequest { pod_sandbox_id: sandbox.clone(), port: vec![port] };
    let url = client.runtime.port_forward(forward(8080)).await.unwrap().into_inner().url;
    assert!(open(&url, "v9.unknown.k8s.io").await.unwrap_err().contains("403"));
    let url = client.runtime.port_forward(forward(8080)).await.unwrap().into_inner().url;
    let mut socket = open(&url, "v4.channel.k8s.io").await.unwrap();
    for channel in [0u8, 1] {
        let first = socket.next().await.unwrap().unwrap().into_data();
        assert_eq!(first[..], [&[channel][..], &8080u16.to_le_bytes()].concat()[..]);
    }
    socket.send(Message::binary(b"\0echo this".to_vec())).await.unwrap();
    let answer = socket.next().await.unwrap().unwrap().into_data();
    assert_eq!(&answer[..], b"\0echo this");
    assert!(client.runtime.port_forward(forward(70_000)).await.is_err());
    runtime.finish().await;
}
