// Parts of a vault that Azure's clients read and write beside it: connections, extended information, certificates.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { parseInput } from "../api/arm-errors.ts";
import { defineResource, type ArmCall, type ResourceType } from "../api/resource-type.ts";
import type { JsonObject, ResourceStore } from "../db/resources.ts";
import type { SecretStore } from "../db/secrets.ts";
import { vaultType } from "../private-link/link-target.ts";
import type { PrivateLink } from "../private-link/private-link.ts";
import { connectionResource } from "./connections.ts";

export function vaultPartTypes(parts: {
  readonly resources: ResourceStore;
  readonly secrets: SecretStore;
  readonly privateLink: () => PrivateLink;
}): readonly ResourceType[] {
  const { resources, secrets, privateLink } = parts;
  return [connectionResource({ targetType: vaultType, resources, privateLink }), extendedResource(secrets), certificateResource()];
}

const extendedType = `${vaultType}/extendedInformation`;
const extendedName = "vaultExtendedInfo";
const extendedShape = z.strictObject({
  integrityKey: z.string().max(4000).optional(),
  encryptionKey: z.string().max(4000).optional(),
  encryptionKeyThumbprint: z.string().max(200).optional(),
  algorithm: z.string().max(40).optional(),
});

/** What a client keeps with a vault. Its keys are sealed, and answered to nobody: the hub's own keys never depend on them. */
function extendedResource(secrets: SecretStore): ResourceType {
  const read = async (vaultId: string): Promise<z.infer<typeof extendedShape> | undefined> => {
    const sealed = await secrets.find(vaultId, extendedName);
    return sealed === undefined ? undefined : extendedShape.parse(JSON.parse(Buffer.from(sealed).toString("utf8")));
  };
  const show = async ({ id }: ArmCall): Promise<JsonObject | undefined> => {
    const stored = await read(id.parentText);
    if (stored === undefined || id.name.toLowerCase() !== extendedName.toLowerCase()) return undefined;
    const { encryptionKeyThumbprint, algorithm = "None" } = stored;
    return { id: id.text, name: extendedName, type: extendedType, properties: { encryptionKeyThumbprint, algorithm } };
  };
  const write = async (
    call: ArmCall,
    wanted: z.infer<typeof extendedShape>,
  ): Promise<{ readonly kind: "answered"; readonly body: JsonObject }> => {
    if (call.id.name.toLowerCase() !== extendedName.toLowerCase())
      throw new Fault("InputInvalid", `could not store ${call.id.name}: a vault's extended information is named ${extendedName}`);
    await secrets.replace(call.id.parentText, extendedName, Buffer.from(JSON.stringify(wanted), "utf8"));
    return { kind: "answered", body: (await show(call)) ?? {} };
  };
  return defineResource({
    type: extendedType,
    isBare: true,
    within: "parent",
    canPatch: true,
    properties: extendedShape,
    source: {
      get: show,
      list: async (call) => {
        const stored = await show({ ...call, id: { ...call.id, parentText: call.id.text, name: extendedName } });
        return { items: stored === undefined ? [] : [stored], next: undefined };
      },
    },
    onPut: async (call, { properties }) => await write(call, properties),
    // The keys are not in what is answered, so the change is laid over what is stored.
    onPatch: async (call, _desired, patch) =>
      await write(call, {
        ...(await read(call.id.parentText)),
        ...parseInput(extendedShape, patch, "the change of the extended information"),
      }),
  });
}

/** Azure registers servers by uploading their certificate. Here an appliance makes its key itself and brings a registration key. */
function certificateResource(): ResourceType {
  return defineResource({
    type: `${vaultType}/certificates`,
    within: "parent",
    properties: z.record(z.string(), z.unknown()),
    source: { get: async () => undefined, list: async () => ({ items: [], next: undefined }) },
    onPut: async ({ id }) => {
      throw new Fault("OperationNotSupported", `could not upload the certificate ${id.name}: appliances do not register by certificate`, {
        action: "make a registration key (POST registrationKeys on the vault) and carry it to the appliance",
      });
    },
  });
}
