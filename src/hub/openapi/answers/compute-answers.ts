// What landed machines and their disks answer.

import { z } from "zod";
import { addressingShape } from "../../replication/launch-settings.ts";
import {
  absent,
  anything,
  none,
  number,
  part,
  place,
  reference,
  row,
  text,
  texts,
  time,
  whole,
  yesOrNo,
  type AnswerTable,
} from "./answer-parts.ts";

const autostartAnswer = z.strictObject({ isOn: yesOrNo, order: whole, delaySeconds: whole });
const compute = "Microsoft.Compute";

const attachedDisk = {
  name: text,
  createOption: z.literal("Attach"),
  deleteOption: z.enum(["Delete", "Detach"]),
  diskSizeGB: whole,
  managedDisk: reference,
};
const statuses = z.array(z.strictObject({ code: text, level: text, displayStatus: text, time: time.optional() }));
const instanceView = z.strictObject({
  computerName: text,
  hyperVGeneration: z.enum(["V1", "V2"]),
  disks: z.array(z.strictObject({ name: text, statuses: none })),
  bootDiagnostics: z.strictObject({}),
  statuses,
});
const size = z.strictObject({
  name: text,
  numberOfCores: whole,
  memoryInMB: whole,
  maxDataDiskCount: whole,
  osDiskSizeInMB: whole,
  resourceDiskSizeInMB: whole,
});

/** What ARM has no word for. */
const extension = z.strictObject({
  purpose: z.enum(["test", "migrated", "made"]),
  protectedItemId: text.optional(),
  recoveryPointId: text.optional(),
  network: z.strictObject({ kind: z.enum(["isolated", "named"]), name: text.optional() }),
  nics: z.array(
    z.strictObject({ mac: text, guestName: text, address: text.optional(), name: text.optional(), addressing: addressingShape.optional() }),
  ),
  memoryBytes: number,
  addresses: texts,
  bytesToFill: number,
  serialTail: text,
  autostart: autostartAnswer,
});
const machine = row(
  z.strictObject({
    vmId: text,
    timeCreated: time,
    hardwareProfile: z.strictObject({ vmSize: text, vmSizeProperties: z.strictObject({ vCPUsAvailable: whole }) }),
    storageProfile: z.strictObject({
      osDisk: z.strictObject({ ...attachedDisk, osType: text }).optional(),
      dataDisks: z.array(z.strictObject({ lun: whole, ...attachedDisk })),
    }),
    licenseType: text.optional(),
    osProfile: z.strictObject({ computerName: text }),
    networkProfile: z.strictObject({
      networkInterfaces: z.array(z.strictObject({ id: text, properties: z.strictObject({ primary: yesOrNo }) })),
    }),
    diagnosticsProfile: z.strictObject({ bootDiagnostics: z.strictObject({ enabled: z.literal(true) }) }),
    instanceView,
    watari: extension,
  }),
);

export const computeAnswers: AnswerTable = {
  [`${compute}/virtualMachines`]: {
    resource: machine,
    actions: {
      instanceView,
      start: "nothing",
      restart: "nothing",
      powerOff: "nothing",
      deallocate: "nothing",
      retrieveBootDiagnosticsData: z.strictObject({ serialConsoleLogBlobUri: text, consoleScreenshotBlobUri: text, watariExpiresAt: time }),
      setAutostart: autostartAnswer,
      exportDefinition: z.strictObject({ fileName: text, definition: text }),
      openConsole: z.strictObject({ url: text, pageUrl: text.optional(), subprotocols: texts, expiresAt: time }),
    },
  },
  [`${compute}/disks`]: {
    resource: part(
      z.strictObject({
        osType: text.optional(),
        hyperVGeneration: z.enum(["V1", "V2"]).optional(),
        creationData: z.union([
          z.strictObject({ createOption: z.literal("Restore"), sourceUniqueId: text }),
          z.strictObject({ createOption: z.literal("Upload"), uploadSizeBytes: whole }),
        ]),
        diskSizeGB: whole,
        diskSizeBytes: whole,
        diskState: text,
        networkAccessPolicy: text,
        publicNetworkAccess: text,
        timeCreated: time,
        uniqueId: text,
        provisioningState: text,
      }),
      { managedBy: text.optional(), etag: text.optional(), sku: anything.optional() },
    ),
    actions: { beginGetAccess: z.strictObject({ accessSAS: text }), endGetAccess: z.strictObject({}) },
  },
  [`${compute}/availabilitySets`]: { resource: absent },
  [`${compute}/locations`]: { resource: place },
  [`${compute}/locations/vmSizes`]: { resource: size },
  [`${compute}/locations/virtualMachines`]: { resource: machine },
  [`${compute}/virtualMachines/vmSizes`]: { resource: size },
};
