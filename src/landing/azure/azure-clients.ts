// Azure's own clients, with every connection made by the connector: management, and the signed addresses that it gives.

import type { Agent } from "node:https";
import { ComputeManagementClient } from "@azure/arm-compute";
import { NetworkManagementClient } from "@azure/arm-network";
import { AnonymousCredential, newPipeline, PageBlobClient, RestError, type StoragePipelineOptions } from "@azure/storage-blob";
import { Fault } from "../../contract/errors.ts";

type ClientOptions = NonNullable<ConstructorParameters<typeof ComputeManagementClient>[2]>;
export type AzureCredential = ConstructorParameters<typeof ComputeManagementClient>[0];

export interface AzureAccess {
  /** "https://management.azure.com", or a hub's management name. */
  readonly endpoint: string;
  readonly subscriptionId: string;
  readonly credential: AzureCredential;
  /** The connector's: it decides by which way each name is reached. */
  readonly agent: Agent;
}

export interface AzureClients {
  readonly compute: ComputeManagementClient;
  readonly network: NetworkManagementClient;
  readonly agent: Agent;
}

export function openAzureClients({ endpoint, subscriptionId, credential, agent }: AzureAccess): AzureClients {
  const options = { endpoint, additionalPolicies: [throughAgent(agent)] };
  return {
    compute: new ComputeManagementClient(credential, subscriptionId, options),
    network: new NetworkManagementClient(credential, subscriptionId, options),
    agent,
  };
}

/** A request that has an agent is sent by no proxy of the environment. */
export function throughAgent(agent: Agent): NonNullable<ClientOptions["additionalPolicies"]>[number] {
  return {
    position: "perCall",
    policy: {
      name: "throughConnector",
      sendRequest: async (request, next) => {
        request.agent = agent;
        return await next(request);
      },
    },
  };
}

/** Repeats nothing by itself: who uploads knows what may be repeated. */
export function openPages(address: string, agent: Agent): PageBlobClient {
  const options: StoragePipelineOptions & { readonly agent: Agent } = { agent, retryOptions: { maxTries: 1 } };
  return new PageBlobClient(address, newPipeline(new AnonymousCredential(), options));
}

/** Of either kind of client; undefined for what is no answer of Azure. */
export function statusOf(error: unknown): number | undefined {
  return error instanceof Error && "statusCode" in error && typeof error.statusCode === "number" ? error.statusCode : undefined;
}

/** What may pass by itself: no answer, too many calls, a fault of the service, bytes that were changed on their way. */
export function isTransient(error: unknown): boolean {
  if (error instanceof Fault) return error.retry === "now";
  const status = statusOf(error);
  if (error instanceof RestError && error.code === "Md5Mismatch") return true;
  return status === undefined ? error instanceof RestError : status >= 500 || status === 429 || status === 408;
}

/** Runs a call of Azure; what goes wrong is told as a Fault whose evidence is Azure's own words. Signed addresses stay in the cause. */
export async function callAzure<T>(doing: string, signal: AbortSignal | undefined, task: () => Promise<T>): Promise<T> {
  signal?.throwIfAborted();
  try {
    return await task();
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof Fault) throw error;
    const status = statusOf(error);
    const code = error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";
    const evidence = { ...(status === undefined ? {} : { status }), errorCode: code, said: saidBy(error) };
    if (status === 401 || status === 403)
      throw new Fault("Forbidden", `could not ${doing}: Azure refuses the access`, {
        evidence,
        causes: ["the principal lacks a role on the resource group", "its secret has expired"],
        action: "grant the principal Contributor on the resource group of the landing zone, and on its network",
        cause: error,
      });
    throw new Fault("LandingFailed", `could not ${doing}`, { evidence, cause: error });
  }
}

/** Undefined for what is not there. */
export async function absentAsUndefined<T>(task: () => Promise<T>): Promise<T | undefined> {
  try {
    return await task();
  } catch (error) {
    if (statusOf(error) === 404) return undefined;
    throw error;
  }
}

const saidCharactersMax = 1000;

/** Azure's words name resources; what looks like a signed address is left out. */
function saidBy(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.replaceAll(/https?:\/\/\S*[?&]sig=\S*/g, "…").slice(0, saidCharactersMax);
}
