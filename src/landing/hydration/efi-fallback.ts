// Gives an EFI partition the path that firmware starts when it remembers nothing: \EFI\BOOT\BOOTX64.EFI, from the guest's own loader.

import type { Edit } from "./edit.ts";
import type { FileChange, VolumeFiles } from "./volume-files.ts";

const fallbackName = "BOOTX64.EFI";
/** In this order; the first that is there is taken, with its companions beside it. */
const loaders = [
  { name: "shimx64.efi", companions: ["grubx64.efi", "mmx64.efi"] },
  { name: "grubx64.efi", companions: [] },
  { name: "systemd-bootx64.efi", companions: [] },
] as const;

export async function planEfiFallback(efiFiles: VolumeFiles): Promise<Edit> {
  const vendors = await efiFiles.list("/EFI");
  if (vendors === undefined) return { changes: ["! EFI partition: it has no folder EFI, so no firmware can start it"] };
  const boot = vendors.find(({ name }) => name.toUpperCase() === "BOOT");
  const present = boot === undefined ? [] : ((await efiFiles.list(`/EFI/${boot.name}`)) ?? []);
  if (present.some(({ name }) => name.toUpperCase() === fallbackName)) return { changes: [] };
  for (const loader of loaders) {
    for (const vendor of vendors.filter(({ name, kind }) => kind === "folder" && name !== boot?.name)) {
      const inside = (await efiFiles.list(`/EFI/${vendor.name}`)) ?? [];
      const named = (wanted: string) => inside.find(({ name }) => name.toLowerCase() === wanted)?.name;
      const main = named(loader.name);
      const companions = loader.companions.flatMap((name) => named(name) ?? []);
      if (main === undefined || (loader.name === "shimx64.efi" && named("grubx64.efi") === undefined)) continue;
      const folder = `/EFI/${boot?.name ?? "BOOT"}`;
      const from = [main, ...companions].map((name) => `/EFI/${vendor.name}/${name}`);
      const contents = await efiFiles.read(from);
      const efiChanges: FileChange[] = boot === undefined ? [{ kind: "makeFolder", path: folder }] : [];
      for (const [index, path] of from.entries()) {
        const content = contents.get(path);
        const name = index === 0 ? fallbackName : path.slice(path.lastIndexOf("/") + 1);
        if (content === undefined || present.some((file) => file.name.toLowerCase() === name.toLowerCase())) continue;
        efiChanges.push({ kind: "write", path: `${folder}/${name}`, content, mode: 0o700 });
      }
      return { efiChanges, changes: [`EFI${folder.slice(4)}/${fallbackName}: made from EFI/${vendor.name}/${main}`] };
    }
  }
  return { changes: ["! EFI partition: it holds no loader for x86-64 that this program knows"] };
}
