/**
 * The cases of the Autobahn testsuite, groups 1 to 7 and 10, for a server that speaks JSON instead of echoing: a
 * message that would be echoed is a ping of our protocol, answered by its pong. Numbers are Autobahn's.
 */
import { closeCode, limits } from '../../../src/protocol.ts';
import { closeFrame, type FrameWish, frame, op } from './raw-socket.ts';

/** What is expected, in the order in which it comes. */
export interface Expected {
  /** `at` of the pongs of our protocol. */
  pongs?: number[];
  /** Payloads of the control pongs. */
  controlPongs?: string[];
  /** The server closes with one of these codes. A server that goes on answers 1000 with 1000. */
  close: readonly number[];
}

export interface WebSocketCase {
  name: string;
  bytes: Buffer;
  /** Bytes per write. */
  chop?: number;
  expected: Expected;
  /** The client closes the connection once everything else was answered. */
  endsClean: boolean;
}

const broken = [closeCode.badFrame];
const text = (payload: Buffer | string, more: Partial<FrameWish> = {}) =>
  frame({ opcode: op.text, payload, ...more });
const next = (payload: Buffer | string, more: Partial<FrameWish> = {}) =>
  frame({ opcode: op.next, payload, ...more });
const ping = (payload: Buffer | string = '', more: Partial<FrameWish> = {}) =>
  frame({ opcode: op.ping, payload, ...more });
const part = { fin: false } as const;

/** A ping of our protocol, padded to `bytes` when that is given. */
function message(at: number, bytes = 0): string {
  const bare = JSON.stringify({ t: 'ping', at, pad: '' });
  return JSON.stringify({ t: 'ping', at, pad: '*'.repeat(Math.max(0, bytes - bare.length)) });
}

function good(name: string, bytes: Buffer[] | Buffer, expected: Omit<Expected, 'close'>, chop?: number) {
  return made(name, bytes, { ...expected, close: [closeCode.done] }, true, chop);
}

function bad(name: string, bytes: Buffer[] | Buffer, expected: Partial<Expected> = {}, chop?: number) {
  return made(name, bytes, { close: broken, ...expected }, false, chop);
}

function made(
  name: string,
  bytes: Buffer[] | Buffer,
  expected: Expected,
  endsClean: boolean,
  chop?: number,
): WebSocketCase {
  const whole = Array.isArray(bytes) ? Buffer.concat(bytes) : bytes;
  return { name, bytes: whole, expected, endsClean, ...(chop === undefined ? {} : { chop }) };
}

const refused = { close: [closeCode.badMessage] };
const tooBig = { close: [closeCode.tooBig] };

const framing = [
  bad('1.1.1 a text of no bytes is a frame, and no message', text(''), refused),
  ...[125, 126, 127, 128, limits.frameBytes].map((length) =>
    good(`1.1.2-5 a text of ${length} bytes`, text(message(1, length)), { pongs: [1] }),
  ),
  ...[limits.frameBytes + 1, 65_535, 65_536].map((length) =>
    bad(`1.1.6-7 a text of ${length} bytes is more than a client may send`, text(message(1, length)), tooBig),
  ),
  bad('1.1.8 the same in pieces of 997 bytes', text(message(1, 65_536)), tooBig, 997),
  good('1.1.8 the largest in pieces of 997 bytes', text(message(1, limits.frameBytes)), { pongs: [1] }, 997),
  ...[0, 125, 126, 127, 128].map((length) =>
    bad(
      `1.2.1-5 a binary of ${length} bytes is a frame, and no message`,
      frame({ opcode: op.binary, payload: Buffer.alloc(length, 0xfe) }),
      refused,
    ),
  ),
  ...[65_535, 65_536].map((length) =>
    bad(
      `1.2.6-7 a binary of ${length} bytes`,
      frame({ opcode: op.binary, payload: Buffer.alloc(length) }),
      tooBig,
    ),
  ),
  bad('1.2.8 the same in pieces', frame({ opcode: op.binary, payload: Buffer.alloc(65_536) }), tooBig, 997),
];

const bytesOf = (length: number, byte = 0xfe) => Buffer.alloc(length, byte);
const shown = (payload: Buffer) => payload.toString('latin1');

const pings = [
  good('2.1 a ping without payload', ping(), { controlPongs: [''] }),
  good('2.2 a ping with text', ping('Hello, world!'), { controlPongs: ['Hello, world!'] }),
  good('2.3 a ping with bytes that are no text', ping(Buffer.from('00fffefdfcfb00ff', 'hex')), {
    controlPongs: [shown(Buffer.from('00fffefdfcfb00ff', 'hex'))],
  }),
  good('2.4 a ping of 125 bytes', ping(bytesOf(125)), { controlPongs: [shown(bytesOf(125))] }),
  bad('2.5 a ping of 126 bytes', ping(bytesOf(126))),
  good(
    '2.6 a ping of 125 bytes, byte by byte',
    ping(bytesOf(125)),
    { controlPongs: [shown(bytesOf(125))] },
    1,
  ),
  good('2.7 a pong nobody asked for', [frame({ opcode: op.pong })], {}),
  good('2.8 one with payload', [frame({ opcode: op.pong, payload: 'unsolicited' })], {}),
  good('2.9 one, and a ping', [frame({ opcode: op.pong, payload: 'unsolicited' }), ping('asked')], {
    controlPongs: ['asked'],
  }),
  ...[undefined, 1].map((chop) =>
    good(
      `2.10-11 ten pings ${chop ? 'byte by byte' : 'at once'}`,
      Array.from({ length: 10 }, (_, n) => ping(`payload-${n}`)),
      { controlPongs: Array.from({ length: 10 }, (_, n) => `payload-${n}`) },
      chop,
    ),
  ),
];

const reserved = [
  bad('3.1 RSV 1', text(message(1), { rsv: 1 })),
  ...[undefined, 40, 1].map((chop) =>
    bad(
      `3.2-4 a text, one with RSV ${chop === 1 ? 4 : 2}, a ping, ${chop ?? 'all'} at once`,
      [text(message(1)), text(message(2), { rsv: chop === 1 ? 4 : 2 }), ping()],
      { pongs: [1] },
      chop,
    ),
  ),
  bad('3.5 a binary with RSV 5', frame({ opcode: op.binary, payload: bytesOf(8), rsv: 5 })),
  bad('3.6 a ping with RSV 6', ping('x', { rsv: 6 })),
  bad('3.7 a close with RSV 7', frame({ opcode: op.close, rsv: 7 })),
];

const opcodes = [3, 4, 5, 6, 7, 11, 12, 13, 14, 15].flatMap((opcode) => [
  bad(`4 the opcode ${opcode}, which is nobody's`, frame({ opcode, payload: 'reserved opcode payload' })),
  bad(
    `4 the same after a text and before a ping, byte by byte`,
    [text(message(1)), frame({ opcode }), ping()],
    { pongs: [1] },
    opcode % 2 ? 1 : undefined,
  ),
]);

const whole = message(7);
const [start, rest] = [whole.slice(0, 12), whole.slice(12)];
const fifths = [0, 1, 2, 3, 4].map((n) => whole.slice(n * 5, n === 4 ? undefined : n * 5 + 5));
const ways = [undefined, 14, 1];
const inWords = (chop: number | undefined) => (chop === undefined ? 'at once' : `${chop} bytes at a time`);

const fragments = [
  bad('5.1 a ping in two fragments', [ping('fragment1', part), next('fragment2')]),
  bad('5.2 a pong in two fragments', [
    frame({ opcode: op.pong, payload: 'fragment1', fin: false }),
    next('fragment2'),
  ]),
  ...ways.map((chop) =>
    good(
      `5.3-5 a text in two fragments, ${inWords(chop)}`,
      [text(start, part), next(rest)],
      { pongs: [7] },
      chop,
    ),
  ),
  ...ways.map((chop) =>
    good(
      `5.6-8 a text in two fragments and a ping between, ${inWords(chop)}`,
      [text(start, part), ping('between'), next(rest)],
      { pongs: [7], controlPongs: ['between'] },
      chop,
    ),
  ),
  ...[true, false].flatMap((fin) =>
    ways.map((chop) =>
      bad(
        `5.9-14 a continuation (fin ${fin}) of nothing, and a text, ${inWords(chop)}`,
        [next('non-continuation payload', { fin }), text(message(1))],
        {},
        chop,
      ),
    ),
  ),
  bad(
    '5.15 a text in two fragments, then a continuation of nothing',
    [text(start, part), next(rest), next('fragment3', part), text(message(1))],
    { pongs: [7] },
  ),
  ...[false, true].map((fin) =>
    bad(`5.16-17 twice a continuation (fin ${fin}) of nothing, a text begun, and continued`, [
      next('fragment1', { fin }),
      text('fragment2', part),
      next('fragment3'),
    ]),
  ),
  bad('5.18 a text in two fragments that both say they begin one', [text(start, part), text(rest)]),
  ...ways.map((chop) =>
    good(
      `5.19-20 a text in five fragments with pings between, ${inWords(chop)}`,
      [
        text(fifths[0] ?? '', part),
        next(fifths[1] ?? '', part),
        ping('first'),
        next(fifths[2] ?? '', part),
        next(fifths[3] ?? '', part),
        ping('second'),
        next(fifths[4] ?? ''),
      ],
      { pongs: [7], controlPongs: ['first', 'second'] },
      chop,
    ),
  ),
];

/** Valid and invalid, after Markus Kuhn's stress test for decoders. */
const sequences: Record<string, { valid?: string[]; invalid?: string[] }> = {
  '6.5 valid sequences': {
    valid: ['24', 'c2a2', 'e282ac', 'f0a4ada2', 'cebae1bdb9cf83cebcceb5'],
  },
  '6.6 prefixes of a valid text': {
    valid: ['ceba', 'cebae1bdb9', 'cebae1bdb9cf83', 'cebae1bdb9cf83cebc', 'cebae1bdb9cf83cebcceb5'],
    invalid: ['ce', 'cebae1', 'cebae1bd', 'cebae1bdb9cf', 'cebae1bdb9cf83ce', 'cebae1bdb9cf83cebcce'],
  },
  '6.7 first of a length': { valid: ['00', 'c280', 'e0a080', 'f0908080'] },
  '6.8 first of lengths that there are not': { invalid: ['f888808080', 'fc8480808080'] },
  '6.9 last of a length': { valid: ['7f', 'dfbf', 'efbfbf', 'f48fbfbf'] },
  '6.10 last of lengths that there are not': { invalid: ['f7bfbfbf', 'fbbfbfbfbf', 'fdbfbfbfbfbf'] },
  '6.11 other boundaries': { valid: ['ed9fbf', 'ee8080', 'efbfbd', 'f48fbfbf'], invalid: ['f4908080'] },
  '6.12 continuations of nothing': {
    invalid: [
      ...['80', 'bf', '80bf', '80bf80', '80bf80bf', '80bf80bf80', '80bf80bf80bf'],
      Buffer.from(Array.from({ length: 0x3f }, (_, n) => 0x80 + n)).toString('hex'),
    ],
  },
  '6.13 lonely starts': {
    invalid: [
      [0xc0, 0xdf],
      [0xe0, 0xef],
      [0xf0, 0xf7],
      [0xf8, 0xfb],
      [0xfc, 0xfd],
    ].map(([from = 0, to = 0]) =>
      Array.from({ length: to - from }, (_, n) => `${(from + n).toString(16)}20`).join(''),
    ),
  },
  '6.14 the last continuation missing': {
    invalid: [
      ...['c0', 'e080', 'f08080', 'f8808080', 'fc80808080'],
      ...['df', 'efbf', 'f7bfbf', 'fbbfbfbf', 'fdbfbfbfbf'],
    ],
  },
  '6.15 incomplete ones in a row': {
    invalid: ['c0e080f08080f8808080fc80808080dfefbff7bfbffbbfbfbffdbfbfbfbf'],
  },
  '6.16 impossible bytes': { invalid: ['fe', 'ff', 'fefeffff'] },
  '6.17 overlong slashes': { invalid: ['c0af', 'e080af', 'f08080af', 'f8808080af', 'fc80808080af'] },
  '6.18 the largest overlong ones': {
    invalid: ['c1bf', 'e09fbf', 'f08fbfbf', 'f887bfbfbf', 'fc83bfbfbfbf'],
  },
  '6.19 overlong zeros': { invalid: ['c080', 'e08080', 'f0808080', 'f880808080', 'fc8080808080'] },
  '6.20 single surrogates': {
    invalid: ['eda080', 'edadbf', 'edae80', 'edafbf', 'edb080', 'edbe80', 'edbfbf'],
  },
  '6.21 paired surrogates': {
    invalid: ['eda080', 'edadbf', 'edae80', 'edafbf'].flatMap((high) => [`${high}edb080`, `${high}edbfbf`]),
  },
  '6.22 code points that are no characters': {
    valid: [
      ...['efbfbe', 'efbfbf'],
      ...['f09f', 'f0af', 'f0bf', 'f18f', 'f19f', 'f1af', 'f1bf', 'f28f', 'f29f', 'f2af', 'f2bf'].flatMap(
        bothEnds,
      ),
      ...['f38f', 'f39f', 'f3af', 'f3bf', 'f48f'].flatMap(bothEnds),
    ],
  },
  '6.23 specials': { valid: ['efbfb9', 'efbfba', 'efbfbb', 'efbfbc', 'efbfbd', 'efbfbe', 'efbfbf'] },
};

function bothEnds(head: string): string[] {
  return [`${head}bfbe`, `${head}bfbf`];
}

/** Text inside a message. A control character, which JSON does not allow there, makes it a text that is no message. */
function around(hex: string): Buffer {
  const [before = '', after = ''] = JSON.stringify({ t: 'ping', at: 6, pad: '|' }).split('|');
  return Buffer.concat([Buffer.from(before), Buffer.from(hex, 'hex'), Buffer.from(after)]);
}

const badText = { close: [closeCode.badText] };
const greeting = Buffer.from(message(6).replace('pad":"', 'pad":"Hello-µ@ßöäüàá-UTF-8!!'));
const cut = greeting.indexOf('ß') + 2;
const wrongText = around('cebae1bdb9cf83cebcceb5eda080656469746564');
const oneByOne = (bytes: Buffer) =>
  [...bytes].map((byte, at) => {
    const more = { fin: at === bytes.length - 1 };
    return at === 0 ? text(Buffer.from([byte]), more) : next(Buffer.from([byte]), more);
  });
const tooFar = [around('cebae1bdb9cf83cebcceb5f4908080'), around('cebae1bdb9cf83cebcceb5f4')] as const;

const utf8 = [
  bad('6.1.1 a text of no bytes', text(''), refused),
  bad('6.1.2 three fragments of no bytes', [text('', part), next('', part), next('')], refused),
  good('6.1.3 fragments of which only the second has any', [text('', part), next(whole, part), next('')], {
    pongs: [7],
  }),
  good('6.2.1 a valid text', text(greeting), { pongs: [6] }),
  good(
    '6.2.2 one in fragments between code points',
    [text(greeting.subarray(0, cut), part), next(greeting.subarray(cut))],
    { pongs: [6] },
  ),
  good('6.2.3 one in fragments of a byte, code points apart', oneByOne(greeting), { pongs: [6] }),
  good('6.2.4 another one', oneByOne(around('cebae1bdb9cf83cebcceb5')), { pongs: [6] }),
  bad('6.3.1 an invalid text', text(wrongText), badText),
  bad('6.3.2 one in fragments of a byte', oneByOne(wrongText), badText),
  ...[undefined, 1].flatMap((chop) => [
    bad(
      `6.4 an invalid text in fragments, ${inWords(chop)}`,
      [text(tooFar[0].subarray(0, 30), part), next(tooFar[0].subarray(30), part), next('}')],
      badText,
      chop,
    ),
    bad(`6.4 one that is invalid at its end, ${inWords(chop)}`, text(tooFar[1]), badText, chop),
  ]),
  ...Object.entries(sequences).flatMap(([name, { valid = [], invalid = [] }]) => [
    ...valid.map((hex) =>
      hex === '00'
        ? bad(`${name}: ${hex}`, text(around(hex)), refused)
        : good(`${name}: ${hex}`, text(around(hex)), { pongs: [6] }),
    ),
    ...invalid.map((hex) => bad(`${name}: ${hex}`, text(around(hex)), badText)),
  ]),
];

const done = { close: [closeCode.done] };
const ended = (name: string, bytes: Buffer[], expected: Expected) => made(name, bytes, expected, false);
const validCodes = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
const invalidCodes = [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535];

const closing = [
  ended('7.1.1 a message, and a close', [text(message(1)), closeFrame(1000)], { pongs: [1], ...done }),
  ended('7.1.2 two closes', [closeFrame(1000), closeFrame(1000)], done),
  ended('7.1.3 a ping after the close', [closeFrame(1000), ping('late')], done),
  ended('7.1.4 a message after the close', [closeFrame(1000), text(message(1))], done),
  ended('7.1.5 a close inside of a message', [text(start, part), closeFrame(1000), next(rest)], done),
  ended(
    '7.1.6 a message that is too big, and a close',
    [text(message(1, 262_144)), closeFrame(1000)],
    tooBig,
  ),
  ended('7.3.1 a close without payload', [frame({ opcode: op.close })], { close: [1005, 1000] }),
  bad('7.3.2 a close with half a code', frame({ opcode: op.close, payload: Buffer.from([3]) })),
  ended('7.3.3 a close with a code', [closeFrame(1000)], done),
  ended('7.3.4 one with a reason', [closeFrame(1000, 'Hello World!')], done),
  ended('7.3.5 one with the longest reason', [closeFrame(1000, '*'.repeat(123))], done),
  bad('7.3.6 one with a longer reason', closeFrame(1000, '*'.repeat(124))),
  bad('7.5.1 a reason that is no text', closeFrame(1000, wrongText), { close: [1002, closeCode.badText] }),
  ...validCodes.map((code) => ended(`7.7 the code ${code}`, [closeFrame(code)], { close: [code] })),
  ...invalidCodes.map((code) => bad(`7.9, 7.13 the code ${code}`, closeFrame(code))),
];

const pieces = (payload: Buffer, size: number) => {
  const count = Math.ceil(payload.length / size);
  return Array.from({ length: count }, (_, n) => {
    const piece = payload.subarray(n * size, n * size + size);
    return n === 0 ? text(piece, { fin: count === 1 }) : next(piece, { fin: n === count - 1 });
  });
};

const automatic = [
  good(
    '10.1.1 the largest message, in fragments of 130 bytes',
    pieces(Buffer.from(message(9, limits.frameBytes)), 130),
    {
      pongs: [9],
    },
  ),
  bad(
    '10.1.1 a message of 65,536 bytes, in fragments of 1,300',
    pieces(Buffer.from(message(9, 65_536)), 1_300),
    tooBig,
  ),
];

export const cases: readonly WebSocketCase[] = [
  ...framing,
  ...pings,
  ...reserved,
  ...opcodes,
  ...fragments,
  ...utf8,
  ...closing,
  ...automatic,
  bad('5.1 (RFC) a frame that is not masked', frame({ opcode: op.text, payload: message(1), masked: false })),
];
