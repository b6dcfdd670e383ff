//! What people see.

use crate::support::{BOTH, Services, Way, World};

async fn html(world: &World) -> String {
    let answer = world.get("/").send().await.unwrap();
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
async fn the_page_says_what_runs_and_links_to_what_is_there() {
    for way in BOTH {
        let world = Services::new(way).door().await;
        let html = html(&world).await;
        assert!(html.contains("All services are ready."), "{way:?}: {html}");
        for service in ["organization", "job", "file", "billing", "runner"] {
            assert!(html.contains(&format!("<th scope=\"row\">{service}</th><td class=\"good\">ready</td>")), "{html}");
        }
        assert!(html.contains("<dt>Bus</dt><dd>a &lt;bus&gt; of tests</dd>"), "{html}");
        assert!(!html.contains("<script") && !html.contains("http"), "nothing from elsewhere, nothing that runs");
        let links = links(&html);
        assert!(links.contains(&"/api/docs/".to_owned()) && links.contains(&"/api/v1/openapi.json".to_owned()));
        for link in links.iter().filter(|link| !link.starts_with("data:")) {
            assert_eq!(world.get(link).send().await.unwrap().status(), 200, "{link}");
        }
    }
}

fn links(html: &str) -> Vec<String> {
    html.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_service_that_isn_t_ready_is_shown_without_the_reason() {
    for way in BOTH {
        let services = Services::new(way);
        services.health.add_check("job-database", async || Err("no route to 10.0.0.3".to_owned()));
        services.health.add_check("file-database", async || Ok(()));
        let world = services.door().await;
        let html = html(&world).await;
        let expected = "<th scope=\"row\">job</th><td class=\"bad\">not ready</td>";
        assert!(html.contains(expected), "{way:?}: {html}");
        assert!(html.contains("job-database (failing)") && !html.contains("10.0.0.3"), "{html}");
        if way == Way::Local {
            assert!(html.contains("<th scope=\"row\">file</th><td class=\"good\">ready</td><td>file-database</td>"));
            assert!(html.contains("4 of 5 services are ready."));
        }
    }
}

#[tokio::test]
async fn a_service_that_isn_t_there_is_shown() {
    let mut services = Services::new(Way::Http);
    services.down.push("billing");
    let world = services.door().await;
    let html = html(&world).await;
    assert!(html.contains("<th scope=\"row\">billing</th><td class=\"bad\">no answer</td>"), "{html}");
}
