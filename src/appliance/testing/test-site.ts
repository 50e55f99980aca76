// For tests: a site with state folder, authority, registry and both agent ports on loopback, and a clock that tests move.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock, type Clock } from "../../base/clock.ts";
import { silentLog, type Log } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import type { ReplicationPolicy } from "../../contract/agent-control.ts";
import type { Fault } from "../../contract/errors.ts";
import type { MachineId } from "../../contract/ids.ts";
import type { Vault } from "../../vault/vault.ts";
import { startAgentListener } from "../control/agent-listener.ts";
import { createAgentOrders, type AgentOrders } from "../control/agent-orders.ts";
import { createMachineRegistry, type MachineRegistry } from "../control/machine-registry.ts";
import { createGroupPoints } from "../ingest/group-points.ts";
import { startIngestListener, type IngestListener } from "../ingest/ingest-listener.ts";
import { createPointLedger, type PointLedger } from "../ingest/point-ledger.ts";
import { FlowBook } from "../flow/flow-book.ts";
import { LineLimits } from "../limits/line-limits.ts";
import { openSiteAuthority, type SiteAuthority } from "../identity/site-authority.ts";
import { ServerIdentity } from "../identity/server-identity.ts";
import { openStateDatabase, type StateDatabase } from "../state/database.ts";
import { createSealedFacts } from "../state/facts.ts";
import { openSecretBox } from "../state/secret-box.ts";
import { openTestVault, type TestVault } from "./test-vault.ts";

export interface TestClock extends Clock {
  advance(ms: number): void;
}

/** Runs with the system's clock, plus what tests add. */
function createTestClock(): TestClock {
  let addedMs = 0;
  return {
    nowMs: () => systemClock.nowMs() + addedMs,
    monotonicMs: () => systemClock.monotonicMs() + addedMs,
    sleep: systemClock.sleep,
    advance: (ms) => {
      addedMs += ms;
    },
  };
}

export const testPolicy: ReplicationPolicy = { pointIntervalSeconds: 5, freezeMsMax: 2000 };

export interface TestSite extends AsyncDisposable {
  readonly folder: string;
  readonly clock: TestClock;
  readonly database: StateDatabase;
  readonly authority: SiteAuthority;
  readonly registry: MachineRegistry;
  readonly orders: AgentOrders;
  readonly ledger: PointLedger;
  readonly limits: LineLimits;
  readonly flow: FlowBook;
  readonly vault: TestVault;
  readonly ingest: IngestListener;
  readonly controlPort: number;
  readonly dataPort: number;
  readonly outcomes: (Fault | undefined)[];
  /** Copies that were refused. */
  readonly copies: Fault[];
  /** Set to make begin frames fail, wait, or be judged by a real look. */
  space: { fault: Fault | undefined; held?: Promise<void>; check?: () => Promise<void> };
  protect(machineId: MachineId): void;
}

export interface TestSiteOptions {
  /** Of the data port; silent unless given. */
  readonly log?: Log;
  /** Of the caller, and stays the caller's. */
  readonly vault?: Vault;
  readonly silentMsMax?: number;
  readonly aliveEveryMs?: number;
  /** By which the lines' limits count; the site's unless given. */
  readonly limitsClock?: Clock;
}

export async function startTestSite(options: TestSiteOptions = {}): Promise<TestSite> {
  const clock = createTestClock();
  await using cleanup = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), "watari-appliance-"));
  cleanup.defer(async () => await rm(folder, { recursive: true, force: true }));
  const database = cleanup.use(openStateDatabase(join(folder, "state.sqlite")));
  const box = await openSecretBox(join(folder, "state.key"), systemRandom);
  const authority = await openSiteAuthority(createSealedFacts(database, box), clock);
  const registry = createMachineRegistry({ database, clock, random: systemRandom, log: silentLog });
  const orders = createAgentOrders({ database, clock });
  const ledger = createPointLedger({ database, clock });
  const limits = new LineLimits({ database, clock: options.limitsClock ?? clock, log: silentLog });
  const flow = new FlowBook({ clock, ledger, limits });
  const vault = await openTestVault();
  cleanup.use(vault.vault);
  const identity = await ServerIdentity.open({ authority, addresses: ["127.0.0.1"], clock });
  const outcomes: (Fault | undefined)[] = [];
  const copies: Fault[] = [];
  const onIdentity = (_facts: unknown, fault: Fault | undefined): void => void (fault === undefined || copies.push(fault));
  const space: TestSite["space"] = { fault: undefined };
  const listen = { addresses: ["127.0.0.1"], port: 0, identity, caPem: authority.caPem };
  const ingest = cleanup.use(
    await startIngestListener(
      {
        vault: options.vault ?? vault.vault,
        ledger,
        registry,
        clock,
        log: options.log ?? silentLog,
        groups: createGroupPoints({ registry, ledger, orders, clock, random: systemRandom, log: silentLog }),
        checkSpace: async () => {
          await space.held;
          await space.check?.();
          if (space.fault !== undefined) throw space.fault;
        },
        onOutcome: (_peer, fault) => outcomes.push(fault),
        flow,
        pass: (machineId, bytes, gone) => limits.passFromAgent(machineId, bytes, gone),
        ...(options.silentMsMax === undefined ? {} : { silentMsMax: options.silentMsMax }),
        ...(options.aliveEveryMs === undefined ? {} : { aliveEveryMs: options.aliveEveryMs }),
      },
      listen,
    ),
  );
  const dataPort = ingest.listening[0]?.port ?? 0;
  const control = cleanup.use(
    await startAgentListener(
      {
        ...{ authority, registry, orders, clock, dataPort: () => dataPort, log: silentLog, onIdentity },
        onState: (machineId, state) => flow.noteState(machineId, state),
      },
      listen,
    ),
  );
  const owned = cleanup.move();
  return {
    folder,
    ...{ clock, database, authority, registry, orders, ledger, limits, flow, vault, ingest },
    controlPort: control.listening[0]?.port ?? 0,
    dataPort,
    outcomes,
    copies,
    space,
    protect: (machineId) => protect(registry, machineId),
    [Symbol.asyncDispose]: async () => await owned.disposeAsync(),
  };
}

function protect(registry: MachineRegistry, machineId: MachineId): void {
  registry.protect(machineId, {
    infrastructureId: machineId,
    orderId: systemRandom.uuid(),
    policy: testPolicy,
    address: "127.0.0.1",
    credentialId: "none",
  });
}
