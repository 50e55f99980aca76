// A set of numbers from 0 on, one bit each, in pieces that exist only where numbers were added.

const pieceNumbers = 65_536;

export class NumberSet {
  readonly #pieces: (Uint8Array | undefined)[] = [];

  has(number: number): boolean {
    const piece = this.#pieces[Math.floor(number / pieceNumbers)];
    const at = number % pieceNumbers;
    return piece !== undefined && ((piece[at >> 3] ?? 0) & (1 << (at & 7))) !== 0;
  }

  /** Whether it was not in the set before. */
  add(number: number): boolean {
    const index = Math.floor(number / pieceNumbers);
    const piece = (this.#pieces[index] ??= new Uint8Array(pieceNumbers / 8));
    const at = number % pieceNumbers;
    const byte = piece[at >> 3] ?? 0;
    const bit = 1 << (at & 7);
    piece[at >> 3] = byte | bit;
    return (byte & bit) === 0;
  }
}
