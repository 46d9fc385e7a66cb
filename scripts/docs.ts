/** Writes the pages of docs/ that are made from the code: `npm run docs`. A test compares them with the code. */
import { writeFile } from 'node:fs/promises';
import { configPage, pagePath } from './config-page.ts';

await writeFile(pagePath, configPage());
