import { describe, expect, it } from 'vitest';
import { refuseOtherMajor } from '../../../src/database/server/throw-away.ts';

describe('a throw-away server', () => {
  it('must have the major version of the live server, and the error says which image has it', () => {
    const live = { at: 'db.example.com:5432', version: '16.4' };
    expect(() => refuseOtherMajor(live, '18.1')).toThrow(
      expect.objectContaining({
        code: 'CONFIG_INVALID',
        next: [expect.stringContaining('set images.postgres to postgres:16'), expect.anything()],
      }),
    );
    expect(() => refuseOtherMajor(live, '16.11')).not.toThrow();
  });
});
