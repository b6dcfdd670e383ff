//! Downloads.

use axum::http::Method;

use crate::support::{MIB, PART_BYTES, Uploads, content};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn range_may_span_parts() {
    let uploads = Uploads::start().await;
    let bytes = content(2 * PART_BYTES as usize + MIB);
    let file = uploads.upload("a", &bytes).await;
    let (length, boundary) = (bytes.len(), PART_BYTES as usize);
    let cases = [
        ("bytes=0-0".to_owned(), 0..1),
        (format!("bytes={}-{}", boundary - 1, boundary), boundary - 1..boundary + 1),
        (format!("bytes={}-{}", boundary, boundary), boundary..boundary + 1),
        (format!("bytes=1-{}", 2 * boundary), 1..2 * boundary + 1),
        (format!("bytes={}-", 2 * boundary - 2), 2 * boundary - 2..length),
        (format!("bytes=-{}", MIB + 1), length - MIB - 1..length),
        (format!("bytes={}-{}", length - 1, length + 5), length - 1..length),
    ];
    for (header, range) in cases {
        let read = uploads.get(&format!("files/{file}/content")).header("range", &header).send().await.expect(206);
        assert!(read.bytes == bytes[range.clone()], "{header}");
        assert_eq!(read.header("content-range"), format!("bytes {}-{}/{length}", range.start, range.end - 1));
        assert_eq!(read.header("content-length"), range.len().to_string());
    }
    for header in ["bytes=0-1,3-4", "bytes=5-2", "lines=1-2"] {
        let read = uploads.get(&format!("files/{file}/content")).header("range", header).send().await.expect(200);
        assert_eq!(read.bytes.len(), length, "{header}");
    }
    for header in [format!("bytes={length}-"), "bytes=-0".to_owned()] {
        let refused = uploads.get(&format!("files/{file}/content")).header("range", &header).send().await;
        assert_eq!(refused.header("content-range"), format!("bytes */{length}"));
        refused.problem(416);
    }
    uploads.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn download_headers_describe_attachment() {
    let uploads = Uploads::start().await;
    let bytes = content(1000);
    let file = uploads.upload("Größe 1.csv", &bytes).await;
    let whole = uploads.content(file).await.expect(200);
    let head = uploads.service.request(Method::HEAD, uploads.path(&format!("files/{file}/content")));
    let head = head.by(&uploads.member).header("range", "bytes=0-1").send().await.expect(200);
    assert_eq!(head.bytes.len(), 0);
    for answer in [&whole, &head] {
        assert_eq!(answer.header("content-type"), "text/csv");
        assert_eq!(answer.header("content-length"), "1000");
        assert_eq!(answer.header("accept-ranges"), "bytes");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(
            answer.header("content-disposition"),
            "attachment; filename=\"Gr__e 1.csv\"; filename*=UTF-8''Gr%C3%B6%C3%9Fe%201.csv"
        );
        assert_eq!(answer.header("etag"), format!("\"{file}\""));
    }
    let read = |if_range: &str| {
        let request = uploads.get(&format!("files/{file}/content")).header("range", "bytes=10-");
        request.header("if-range", if_range).send()
    };
    assert_eq!(read(whole.header("etag")).await.expect(206).bytes, bytes[10..]);
    assert_eq!(read("\"another\"").await.expect(200).bytes, bytes);
    uploads.close().await;
}
