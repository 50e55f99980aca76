// Every fault of the world that a person can meet: id, message, causes, action, evidence, and one table that maps ids.

/** never: the same call fails again. later: may pass by itself. now: at once, for example after a lost race. */
export type RetryAdvice = "never" | "later" | "now";

interface FaultKind {
  readonly httpStatus: number;
  readonly exitCode: number;
  readonly retry: RetryAdvice;
  readonly causes: readonly string[];
  readonly action: string;
}

/**
 * The table. Exit codes: 2 bad input, 3 refused by state or rights, 4 the network or a peer, 5 data in doubt, 6 this machine.
 * Add a row with the code that throws it; keep groups together.
 */
export const faultKinds = {
  // Input and state
  InputInvalid: row(
    400,
    2,
    "never",
    ["a value is missing or has the wrong form"],
    "correct the value named in the evidence and call again",
  ),
  NotFound: row(404, 2, "never", ["the name is misspelt", "it was removed"], "list what exists and call again"),
  StateConflict: row(
    409,
    3,
    "later",
    ["another operation is under way", "the resource is not in a state that allows this"],
    "wait for the operation named in the evidence, then call again",
  ),
  AlreadyProtected: row(
    409,
    3,
    "never",
    ["replication was enabled before", "another appliance replicates this machine"],
    "use the existing protected item, or disable its replication first",
  ),
  Unauthorized: row(401, 3, "never", ["the token is missing, expired or for another audience"], "sign in again"),
  Forbidden: row(
    403,
    3,
    "never",
    ["the caller has no role that allows this", "public access is off and the call came by the public door"],
    "ask for the role named in the evidence, or call through the private endpoint",
  ),
  PreconditionFailed: row(
    412,
    3,
    "now",
    ["the resource was changed since it was read", "If-Match or If-None-Match names another state"],
    "read the resource again and repeat the change with its new etag",
  ),
  OperationNotSupported: row(
    405,
    2,
    "never",
    ["this resource type does not have this operation"],
    "use one of the operations named in the evidence",
  ),
  PublicAccessDisabled: row(
    403,
    3,
    "never",
    ["public network access of this resource is off and the call came by the public door"],
    "call the resource's private name through its private endpoint, or enable its public network access",
  ),
  NameNotServed: row(
    421,
    4,
    "never",
    ["this address belongs to another resource", "name resolution gave the wrong address", "the Host header and the TLS name differ"],
    "compare the name resolution with the DNS settings of the private endpoint",
  ),
  KeyUsed: row(409, 3, "never", ["a registration key works once and this one was used"], "create a new registration key for the vault"),
  KeyExpired: row(409, 3, "never", ["a registration key works for 5 days and this one is older"], "create a new registration key for the vault"),
  StorageRoleMissing: row(
    403,
    3,
    "later",
    ["the vault's identity has no role on the storage account"],
    "assign the role Storage Blob Data Contributor on the storage account to the vault's identity",
  ),
  AddressRangeFull: row(
    409,
    3,
    "later",
    ["every address of the subnet is taken"],
    "delete a private endpoint of the subnet, or configure a larger subnet",
  ),
  // Hub
  DatabaseUnavailable: row(
    503,
    4,
    "later",
    ["PostgreSQL does not run", "its address or password is wrong"],
    "check the database named in the hub's configuration, then start the hub again",
  ),
  HubUnreachable: row(
    503,
    4,
    "later",
    ["the proxy or the line is down", "the hub does not run", "the proxy does not allow the name"],
    "check the way to the hub's public names (proxy, DNS), then call again",
  ),
  // Connectivity
  NameUnresolved: row(
    502,
    4,
    "later",
    ["the resolver has no such record", "the private zone is not linked or not forwarded", "the resolver does not answer"],
    "ask the resolver named in the evidence for the name, and add the record or the forwarder",
  ),
  PrivateNamePublic: row(
    502,
    4,
    "later",
    ["a resolver outside the private zone answered", "a hosts line is stale", "the record points at another address"],
    "make the resolver named in the evidence answer with the private endpoint's address",
  ),
  HostUndeclared: row(
    403,
    3,
    "never",
    ["the name is in no list of the network topology", "a name was misspelt"],
    "add the name to the private, site or public names if it belongs there",
  ),
  ConnectionFailed: row(
    502,
    4,
    "later",
    ["nothing listens on that port", "a firewall drops or refuses the way", "no route leads there"],
    "open the way named in the evidence in the firewall, or start the service behind it",
  ),
  ProxyUnreachable: row(
    502,
    4,
    "later",
    ["the proxy is down", "its address or port is wrong", "a firewall stands before it"],
    "check the proxy's address and port, and that it runs",
  ),
  ProxyAuthRequired: row(
    502,
    4,
    "never",
    ["the proxy wants a user and a password", "those given are wrong"],
    "give the proxy's user and password and call again",
  ),
  ProxyRefused: row(
    502,
    4,
    "never",
    ["the proxy's allow-list does not hold the name", "the proxy cannot resolve or reach it"],
    "ask whoever keeps the proxy to allow the target named in the evidence",
  ),
  TlsRefused: row(
    502,
    4,
    "never",
    ["the certificate is expired, for another name, or of an unknown authority", "something in between inspects TLS", "a clock is wrong"],
    "compare subject, issuer and dates in the evidence with what is expected, and trust that authority or renew the certificate",
  ),
  PeerFailed: row(502, 4, "later", ["the service behind the name has a fault of its own"], "look at the log of the service named in the evidence"),
  // Data
  DataDamaged: row(
    500,
    5,
    "never",
    ["a stored object was changed or cut", "memory or disk failed"],
    "run a verification of the vault and resynchronise the machine",
  ),
  SpoolFull: row(
    507,
    6,
    "later",
    ["the line to the vault is slower than the changes", "the spool disk is too small"],
    "free or add space on the appliance's spool disk; replication goes on by itself",
  ),
  StoreUnavailable: row(
    503,
    4,
    "later",
    ["the storage account cannot be reached", "the private line is down"],
    "check the storage account's private endpoint with a connectivity check",
  ),
  // Agent
  AgentCloned: row(
    409,
    3,
    "never",
    ["the machine was copied with its agent inside", "its virtual hardware was replaced"],
    "on the copy, remove the agent and enrol it again: watari-agent uninstall, then push the agent anew",
  ),
  AgentNotRegistered: row(409, 3, "never", ["the agent was never registered", "its state folder was removed"], "register the agent again"),
  ApplianceUnreachable: row(
    503,
    4,
    "later",
    ["the appliance is down", "a firewall between machine and appliance refuses ports 443 or 9443"],
    "check from the machine that ports 443 and 9443 of the appliance answer; the agent tries again by itself",
  ),
  AgentProtocolBroken: row(
    502,
    4,
    "later",
    ["the line between agent and appliance was cut", "something between them alters the stream"],
    "nothing is lost; if it repeats, look for a device that inspects TLS between the two",
  ),
  ProtocolVersionUnsupported: row(409, 3, "never", ["agent and appliance are too far apart in version"], "update the older of the two"),
  BasePointUnknown: row(
    409,
    5,
    "now",
    ["the base point was removed by retention", "the machine has rebooted since"],
    "nothing; the agent compares the whole disk and goes on",
  ),
  RootsDiffer: row(
    409,
    5,
    "now",
    ["a change was missed", "memory or disk failed on one side"],
    "run verify for the machine, then quiesce again",
  ),
  TrackingRefused: row(
    409,
    3,
    "never",
    ["the kernel is too old or locked down", "the disk's driver raises no block events"],
    "look at the reason in the evidence; without change tracking no consistent point can be made of a running machine",
  ),
  FreezeFailed: row(
    409,
    3,
    "later",
    ["the filesystems write more than could be read within the freeze limit", "another program holds a freeze"],
    "raise freezeMsMax in the policy or wait for a quieter time; the agent tries again by itself",
  ),
  QuiesceVoid: row(409, 3, "never", ["the hold time ended", "the watchdog thawed the filesystems"], "give the quiesce order again"),
  OrderInterrupted: row(
    409,
    3,
    "now",
    ["the agent or the machine was restarted", "a later order took precedence"],
    "give the order again with a new id",
  ),
  DiskUnidentified: row(
    409,
    3,
    "never",
    ["the disk has no serial number, WWN or partition table"],
    "give the virtual disk a serial number (on VMware: disk.EnableUUID = TRUE) or a partition table",
  ),
  // Appliance
  ApplianceNotRegistered: row(
    409,
    3,
    "never",
    ["the appliance was set up but not yet registered", "its state folder was removed"],
    "register it: watari appliance register --key FILE",
  ),
  ApplianceNotRunning: row(
    503,
    6,
    "later",
    ["the appliance's program does not run", "the state folder is another one"],
    "start it: watari appliance run --state DIR",
  ),
  HopCheckFailed: row(
    409,
    4,
    "later",
    ["a hop on the way to the hub does not answer as it should"],
    "repair the first failed check named in the evidence, then give the same command again",
  ),
  PassphraseWrong: row(
    403,
    3,
    "never",
    ["the agent was given the passphrase of another appliance", "the passphrase was mistyped"],
    "show the passphrase with watari appliance passphrase and enrol the agent with it",
  ),
  VcenterUnreachable: row(
    503,
    4,
    "later",
    ["the vCenter is down or its address is wrong", "a firewall stands in between"],
    "check from the appliance that the vCenter's port answers",
  ),
  VcenterUntrusted: row(
    502,
    4,
    "never",
    ["the vCenter has a certificate of its own making", "its certificate was replaced", "something inspects TLS in between"],
    "compare the thumbprint in the evidence with the vCenter's own, then add the vCenter with it",
  ),
  VcenterLoginRefused: row(
    403,
    3,
    "never",
    ["user name or password is wrong", "the account is locked or has no right to log in"],
    "correct the credential with watari appliance credential add, then call again",
  ),
  VcenterRefused: row(
    409,
    3,
    "never",
    ["the account lacks a privilege", "the machine is in a state that does not allow this"],
    "look at the vCenter's own answer in the evidence",
  ),
  GuestUnreachable: row(
    503,
    4,
    "later",
    ["the guest is off or its address is wrong", "no SSH server listens", "a firewall stands in between"],
    "check from the appliance that port 22 of the guest answers",
  ),
  GuestPasswordWrong: row(
    403,
    3,
    "never",
    ["user name, password or key is wrong", "the SSH server does not allow this way to log in"],
    "correct the credential with watari appliance credential add, then call again",
  ),
  GuestPrivilegeMissing: row(
    403,
    3,
    "never",
    ["the account may not use sudo", "the sudo password is wrong"],
    "allow the account to run commands as root with sudo, or give a credential of root",
  ),
  HostKeyChanged: row(
    409,
    3,
    "never",
    ["the guest was installed anew", "another machine answers at this address"],
    "make sure that it is the right machine, then forget the old key: watari appliance machine forget-host-key ADDRESS",
  ),
  GuestMismatch: row(
    409,
    3,
    "never",
    ["the address belongs to another machine", "the vCenter shows an old address"],
    "give the machine's address with --address",
  ),
  PrerequisitesMissing: row(
    409,
    3,
    "never",
    ["the guest does not fulfil what the agent needs"],
    "repair what the evidence lists as failed, then give the same command again",
  ),
  GuestCommandFailed: row(
    502,
    4,
    "later",
    ["a command on the guest ended with an error", "the connection to the guest was cut"],
    "look at the output in the evidence; what was begun on the guest has been undone",
  ),
  AgentSilent: row(
    504,
    4,
    "later",
    ["the guest cannot reach the appliance's ports 443 and 9443", "the agent ended with an error"],
    "look at the guest's journal: journalctl -u watari-agent",
  ),
  FenceUnconfirmed: row(
    504,
    5,
    "later",
    ["the vCenter did not carry the order out in time", "the machine was powered on again"],
    "look at the machine's power state in the vCenter and give the order again",
  ),
  // Jobs and migration
  JobCancelled: row(409, 3, "never", ["someone cancelled the job"], "start the operation again when it is wanted"),
  StepAttemptsExhausted: row(
    500,
    6,
    "never",
    ["the hub ended each time it ran this step"],
    "read the hub's log around the times of the attempts, then start the operation again",
  ),
  MachineNotDiscovered: row(
    404,
    2,
    "later",
    ["discovery has not run since the machine was made", "the vCenter account cannot see the machine"],
    "run a discovery on the appliance and list the protectable items",
  ),
  MachineCloned: row(
    409,
    3,
    "never",
    ["another machine with the same BIOS UUID is protected", "this machine is a clone of it"],
    "give the clone its own BIOS UUID in the vCenter, run a discovery, then call again",
  ),
  ApplianceSilent: row(
    504,
    4,
    "later",
    ["the appliance does not run", "the private line is down"],
    "check the appliance and its way to the vault's private endpoint",
  ),
  ReplicationNotReady: row(
    409,
    3,
    "later",
    ["initial replication has not finished", "no recovery point was made yet"],
    "wait for the first recovery point, then call again",
  ),
  ProbeFailed: row(
    502,
    5,
    "later",
    ["the landed machine did not boot", "its service did not start or does not listen on the probed port"],
    "read the serial console in the evidence, then try another recovery point",
  ),
  LeftoverFound: row(
    500,
    6,
    "later",
    ["a landed machine could not be removed"],
    "call the clean-up again; if it stays, remove the machine named in the evidence by hand",
  ),
  // Program
  Internal: row(500, 6, "never", ["a fault of this program"], "send the log around this time to the maintainers"),
  MissingProgram: row(500, 6, "never", ["a needed system package is not installed"], "install the package named in the evidence"),
} satisfies Record<string, FaultKind>;

export type FaultCode = keyof typeof faultKinds;

export type Evidence = Readonly<Record<string, string | number | boolean | readonly string[]>>;

export interface FaultOptions {
  /** What was seen; printed to people, so never a secret. */
  readonly evidence?: Evidence;
  /** Replaces the table's action when a more exact one is known, best a command to run. */
  readonly action?: string;
  readonly causes?: readonly string[];
  readonly retry?: RetryAdvice;
  /** The private cause; never printed to other parties. */
  readonly cause?: unknown;
}

/** The shape that crosses process edges and is printed with --json. */
export interface FaultReport {
  readonly id: FaultCode;
  readonly message: string;
  readonly causes: readonly string[];
  readonly action: string;
  readonly evidence: Evidence;
  readonly retry: RetryAdvice;
}

/** A fault of the world. The message says what was being done, to what, and what went wrong: lower case, no full stop. */
export class Fault extends Error {
  readonly code: FaultCode;
  readonly causes: readonly string[];
  readonly action: string;
  readonly evidence: Evidence;
  readonly retry: RetryAdvice;

  constructor(code: FaultCode, message: string, options: FaultOptions = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.name = "Fault";
    this.code = code;
    const kind: FaultKind = faultKinds[code];
    this.causes = options.causes ?? kind.causes;
    this.action = options.action ?? kind.action;
    this.evidence = options.evidence ?? {};
    this.retry = options.retry ?? kind.retry;
  }

  get httpStatus(): number {
    return faultKinds[this.code].httpStatus;
  }

  get exitCode(): number {
    return faultKinds[this.code].exitCode;
  }
}

export function toReport(fault: Fault): FaultReport {
  const { code, message, causes, action, evidence, retry } = fault;
  return { id: code, message, causes, action, evidence, retry };
}

/** Rebuilds a Fault that came from another process. Unknown ids of newer peers become Internal with the id as evidence. */
export function fromReport(report: FaultReport): Fault {
  const isKnown = Object.hasOwn(faultKinds, report.id);
  return new Fault(isKnown ? report.id : "Internal", report.message, {
    causes: report.causes,
    action: report.action,
    evidence: isKnown ? report.evidence : { ...report.evidence, peerFaultId: report.id },
    retry: report.retry,
  });
}

/** Any thrown value as a Fault: a Fault is itself, anything else is Internal with the original as private cause. */
export function asFault(error: unknown, doing: string): Fault {
  if (error instanceof Fault) return error;
  const text = error instanceof Error ? error.message : String(error);
  return new Fault("Internal", `could not ${doing}: ${text}`, { cause: error });
}

function row(httpStatus: number, exitCode: number, retry: RetryAdvice, causes: readonly string[], action: string): FaultKind {
  return { httpStatus, exitCode, retry, causes, action };
}
