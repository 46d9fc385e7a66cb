/** Findings for people. The other formats are made of the same data. */
import type { Finding } from '../../database/finding.ts';
import type { Style } from '../context.ts';

export function findingLines(style: Style, findings: readonly Finding[]): string[] {
  return findings.flatMap(({ file, line, column, severity, rule, message, why, rewrite }) => {
    const where = file === '' ? '' : `${style.bold(`${file}:${line}:${column}`)}  `;
    return [
      `${where}${paint(style, severity)}  ${message}  ${style.dim(rule)}`,
      ...(why ? [`    ${why}`] : []),
      ...(rewrite ? rewrite.split('\n').map((text) => style.cyan(`    ${text}`)) : []),
    ];
  });
}

function paint(style: Style, severity: Finding['severity']): string {
  if (severity === 'error') return style.red(severity);
  return severity === 'warning' ? style.yellow(severity) : style.dim(severity);
}
