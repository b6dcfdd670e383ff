// A client that reads an invoice and publishes a plan, compiled against the generated types.
import createClient from "openapi-fetch";
import type { components, paths } from "./generated/api.js";

type Client = ReturnType<typeof createClient<paths>>;
type Plan = components["schemas"]["PlanRequest"];

export function connect(baseUrl: string, key: string): Client {
  return createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${key}` } });
}

/** Returns the lines of a month's invoice as text, or the title of the problem. */
export async function readInvoice(client: Client, org: string, month: string): Promise<string[]> {
  const { data, error } = await client.GET("/api/v1/organizations/{org}/invoices/{month}", {
    params: { path: { org, month } },
  });
  if (error) return [error.title];
  // Without `format`, the response is JSON; CSV and HTML are text.
  if (typeof data === "string") throw new Error("the response is not JSON");
  return data.lines.map((line) => `${line.meter}: ${line.quantity} ${line.unit} = ${line.amount} ${data.currency}`);
}

/** Publishes a plan and returns its id. */
export async function publishPlan(client: Client, plan: Plan, idempotencyKey: string): Promise<string> {
  const { data, error } = await client.POST("/api/v1/admin/plans", {
    params: { header: { "Idempotency-Key": idempotencyKey } },
    body: plan,
  });
  if (error) throw new Error(`${error.title}: ${error.detail ?? ""} (trace ${error.trace_id ?? "unknown"})`);
  return data.id;
}

export const basic: Plan = {
  name: "Basic",
  currency: "EUR",
  charges: [
    { meter: "storage", unit: "GB.h", model: "flat", unit_price: "0.0001" },
    { meter: "compute", unit: "s", model: "flat", unit_price: "0.00005" },
  ],
};
