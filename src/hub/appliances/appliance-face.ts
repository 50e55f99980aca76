// The hub's side of contract/appliance-protocol.ts: what each of a vault's five private names answers.

import type { IncomingMessage } from "node:http";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import { assert } from "../../base/assert.ts";
import { fromTimestamp, toTimestamp, type Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import {
  appliancePollRequestShape,
  applianceProgressShape,
  applianceRoutes,
  certificateRequestShape,
  inventoryShape,
  otherAppliancesMax,
  sealedPointsShape,
  telemetryShape,
  type OtherAppliance,
  type PrivateService,
} from "../../contract/appliance-protocol.ts";
import { knowsOrder, requireProtocolVersion, tooOldFor } from "../../contract/appliance-versions.ts";
import { Fault, toReport } from "../../contract/errors.ts";
import type { ResourceId } from "../api/resource-id.ts";
import { createHttpFace } from "../api/api-server.ts";
import { parseInput } from "../api/arm-errors.ts";
import type { Appliance, ApplianceCatalogue } from "../db/appliances.ts";
import type { EventStore } from "../db/events.ts";
import type { ItemLookup } from "../db/item-lookup.ts";
import type { OrderQueue } from "../db/orders.ts";
import type { PointCatalogue } from "../db/points.ts";
import type { RegistrationKeys } from "../db/registration-keys.ts";
import type { Resource } from "../db/resources.ts";
import type { Authority } from "../pki/authority.ts";
import type { HttpHandler } from "../private-link/door.ts";
import type { VaultAccess } from "../resources/vault-access.ts";
import { healthOf } from "../replication/site-appliances.ts";
import { toSentKeys } from "../resources/vault-keys.ts";
import { requireAppliance } from "./appliance-caller.ts";
import { keepPoints } from "./keep-points.ts";
import { keepProgress } from "./keep-progress.ts";
import { registerAppliance, renewCertificate } from "./register.ts";
import { grantStorage } from "./storage-grant.ts";

export interface ApplianceFaceDependencies {
  readonly keys: RegistrationKeys;
  readonly appliances: ApplianceCatalogue;
  readonly orders: OrderQueue;
  readonly points: PointCatalogue;
  readonly itemOf: ItemLookup;
  readonly events: EventStore;
  readonly vaults: VaultAccess;
  readonly authority: Authority;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export interface ApplianceFace {
  /** The handler of one service of one vault. */
  handlerOf(vault: Resource, service: PrivateService): HttpHandler;
  close(): Promise<void>;
}

/** The vault and the service whose name was called; set by the door's handler, never by the request. */
interface Called {
  readonly vault: ResourceId;
  readonly service: PrivateService;
}

/** An inventory of 20 000 machines is larger than any other body. */
const inventoryBytesMax = 64 << 20;

export async function createApplianceFace(dependencies: ApplianceFaceDependencies): Promise<ApplianceFace> {
  const face = createHttpFace({ ...dependencies, toBody: toReport });
  const called = new WeakMap<IncomingMessage, Called>();
  const callers = new WeakMap<IncomingMessage, Appliance>();
  const calledOf = (request: FastifyRequest): Called => {
    const found = called.get(request.raw);
    assert(found !== undefined, "a request reaches the appliance face through handlerOf");
    return found;
  };
  face.addHook("preParsing", async (request) => {
    const { service } = calledOf(request);
    const route = Object.values(applianceRoutes).find(({ path }) => path === request.routeOptions.url);
    if (route !== undefined && route.service !== service)
      throw new Fault("NotFound", `could not find ${route.path} here: it is served by the name of ${route.service}`, {
        evidence: { calledService: service, rightService: route.service },
      });
    // Before the body is read: who has no certificate of this vault has nothing parsed.
    if (route !== undefined && route.path !== applianceRoutes.register.path)
      callers.set(request.raw, await requireAppliance(dependencies.appliances, request.raw, calledOf(request).vault));
  });
  const callerOf = (request: FastifyRequest): Appliance => {
    const found = callers.get(request.raw);
    assert(found !== undefined, "the caller of a route was proved before its body was read");
    return found;
  };
  addRoutes(face, dependencies, { calledOf, callerOf });
  await face.ready();
  return {
    handlerOf: (vault, service) => (request, response) => {
      called.set(request, { vault: vault.id, service });
      face.routing(request, response);
    },
    close: () => face.close(),
  };
}

function addRoutes(
  face: FastifyInstance,
  dependencies: ApplianceFaceDependencies,
  {
    calledOf,
    callerOf,
  }: { readonly calledOf: (request: FastifyRequest) => Called; readonly callerOf: (request: FastifyRequest) => Appliance },
): void {
  const { appliances, points } = dependencies;
  /** A route of a registered appliance: the body parsed, the caller proved, the vault that of the name. */
  const route = <Shape extends z.ZodType>(
    path: string,
    shape: Shape,
    answer: (body: z.infer<Shape>, caller: Appliance, vault: ResourceId, signal: AbortSignal) => Promise<unknown>,
    bodyLimit?: number,
  ): void => {
    face.post(path, bodyLimit === undefined ? {} : { bodyLimit }, async (request, reply) => {
      const body = parseInput(shape, request.body ?? {}, "the call");
      return await reply.send(await answer(body, callerOf(request), calledOf(request).vault, goneSignal(reply)));
    });
  };
  face.post(applianceRoutes.register.path, async (request, reply) => {
    const answer = await registerAppliance(dependencies, calledOf(request).vault, request.body, goneSignal(reply));
    return await reply.send(answer);
  });
  route(applianceRoutes.storageGrant.path, z.looseObject({}), async (_body, _caller, vault, signal) => {
    return (await grantStorage(dependencies, vault.text, signal)).grant;
  });
  route(applianceRoutes.vaultKeys.path, z.looseObject({}), async (_body, _caller, vault) => {
    return toSentKeys((await dependencies.vaults.open(vault.text)).key.keys);
  });
  route(applianceRoutes.certificate.path, certificateRequestShape, async ({ csrPem }, caller, vault) => {
    return await renewCertificate(dependencies, vault, caller, csrPem);
  });
  route(applianceRoutes.poll.path, appliancePollRequestShape, async (body, caller, _vault, signal) => {
    return await poll(dependencies, body, caller, signal);
  });
  route(
    applianceRoutes.inventory.path,
    inventoryShape,
    async (body, caller) => {
      await appliances.saveInventory(caller.applianceId, body);
      return {};
    },
    inventoryBytesMax,
  );
  route(applianceRoutes.points.path, sealedPointsShape, async (body, _caller, vault) => {
    await keepPoints(dependencies, vault, body.points);
    await points.remove(vault.text, body.removedPointIds ?? []);
    return {};
  });
  route(applianceRoutes.telemetry.path, telemetryShape, async (body, caller) => {
    await appliances.saveTelemetry(caller.applianceId, body);
    return { hubTime: toTimestamp(dependencies.clock.nowMs()), others: await tellOthers(dependencies, caller) };
  });
  route(applianceRoutes.progress.path, applianceProgressShape, async (body, caller, vault) => {
    await keepProgress(dependencies, { vault, applianceId: caller.applianceId }, body);
    return {};
  });
}

async function tellOthers({ appliances, clock }: ApplianceFaceDependencies, caller: Appliance): Promise<readonly OtherAppliance[]> {
  return (await appliances.others(caller, otherAppliancesMax)).map((other) => {
    const { spoolBytes, spoolBytesMax, system } = other.telemetry ?? {};
    return {
      ...{ applianceId: other.applianceId, name: other.name, health: healthOf({ clock }, other).health },
      silentSeconds: Math.max(0, (clock.nowMs() - fromTimestamp(other.lastSeenAt)) / 1000),
      ...(spoolBytes === undefined ? {} : { spoolBytes }),
      ...(spoolBytesMax === undefined ? {} : { spoolBytesMax }),
      ...(system === undefined ? {} : { system }),
    };
  });
}

/** Aborts when the caller hung up. */
function goneSignal(reply: FastifyReply): AbortSignal {
  const gone = new AbortController();
  reply.raw.once("close", () => gone.abort());
  return gone.signal;
}

async function poll(
  dependencies: ApplianceFaceDependencies,
  body: z.infer<typeof appliancePollRequestShape>,
  caller: Appliance,
  signal: AbortSignal,
): Promise<unknown> {
  const { orders, appliances } = dependencies;
  requireProtocolVersion(body.protocolVersion, "poll");
  if (body.applianceId !== caller.applianceId)
    throw new Fault("Forbidden", "could not poll: the certificate is another appliance's", {
      evidence: { applianceId: caller.applianceId },
    });
  await appliances.seen(caller.applianceId, body.protocolVersion);
  for (const result of body.results) await orders.answer(caller.applianceId, result);
  for (const progress of body.progress) await orders.progress(caller.applianceId, progress);
  const queued = await orders.waitQueued(caller.applianceId, body.waitSeconds * 1000, signal, { isLost: body.isAnswerLost === true });
  // An older appliance would refuse its whole poll over an order that it cannot read: such an order fails here, and its job says why.
  const known = queued.filter((order) => knowsOrder(body.protocolVersion, order.kind));
  for (const { orderId, kind } of queued)
    if (!known.some((order) => order.orderId === orderId))
      await orders.answer(caller.applianceId, { orderId, outcome: "failed", fault: toReport(tooOldFor(kind, body.protocolVersion)) });
  return { orders: known };
}
