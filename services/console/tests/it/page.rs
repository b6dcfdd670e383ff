//! The status page.

use crate::support::{DEPLOYMENTS, Deployment, TestGateway, TestServices};

async fn html(gateway: &TestGateway) -> String {
    let answer = gateway.get("/").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/html; charset=utf-8");
    let policy = answer.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'self';"), "{policy}");
    for (name, value) in
        [("x-content-type-options", "nosniff"), ("x-frame-options", "DENY"), ("cache-control", "no-store")]
    {
        assert_eq!(answer.headers()[name], value);
    }
    answer.text().await.unwrap()
}

#[tokio::test]
async fn page_shows_services_and_working_links() {
    for deployment in DEPLOYMENTS {
        let gateway = TestServices::new(deployment).start().await;
        let html = html(&gateway).await;
        assert!(html.contains("All services are ready."), "{deployment:?}: {html}");
        for service in ["organization", "job", "file", "billing", "runner"] {
            assert!(html.contains(&format!("<th scope=\"row\">{service}</th><td class=\"good\">ready</td>")), "{html}");
        }
        assert!(html.contains("<dt>Bus</dt><dd>a &lt;bus&gt; of tests</dd>"), "{html}");
        assert!(!html.contains("<script") && !html.contains("http"), "no external resources and no scripts");
        let links = links(&html);
        assert!(links.contains(&"/api/docs/".to_owned()) && links.contains(&"/api/v1/openapi.json".to_owned()));
        for link in links.iter().filter(|link| !link.starts_with("data:")) {
            assert_eq!(gateway.get(link).send().await.unwrap().status(), 200, "{link}");
        }
    }
}

fn links(html: &str) -> Vec<String> {
    html.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn page_shows_failing_check_without_reason() {
    for deployment in DEPLOYMENTS {
        let services = TestServices::new(deployment);
        services.health.add_check("job-database", async || Err("no route to 10.0.0.3".to_owned()));
        services.health.add_check("file-database", async || Ok(()));
        let gateway = services.start().await;
        let html = html(&gateway).await;
        let expected = "<th scope=\"row\">job</th><td class=\"bad\">not ready</td>";
        assert!(html.contains(expected), "{deployment:?}: {html}");
        assert!(html.contains("job-database (failing)") && !html.contains("10.0.0.3"), "{html}");
        if deployment == Deployment::Colocated {
            assert!(html.contains("<th scope=\"row\">file</th><td class=\"good\">ready</td><td>file-database</td>"));
            assert!(html.contains("4 of 5 services are ready."));
        }
    }
}

#[tokio::test]
async fn page_shows_unreachable_service() {
    let mut services = TestServices::new(Deployment::Separate);
    services.down.push("billing");
    let gateway = services.start().await;
    let html = html(&gateway).await;
    assert!(html.contains("<th scope=\"row\">billing</th><td class=\"bad\">no answer</td>"), "{html}");
}
