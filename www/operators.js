// What can be done to a feature or a direction. Written by the test of src/steering/operators.rs, whose table it is,
// with WRITE_OPERATORS=1.

/** @import { OperatorInfo } from "./types.d.ts" */

/** @type {readonly OperatorInfo[]} */
export const OPERATORS = [
  {"name":"clamp","label":"clamp","words":"The feature is held at a strength, however strong it was; all else stays.","deed":"held at {value}","value":"the feature's activation","factor":false,"activation":true,"reconstruction":false,"feature":true,"direction":true},
  {"name":"clamp_replace","label":"clamp, error dropped","words":"The feature is held at a strength, and what the dictionary cannot express is dropped.","deed":"held at {value}, and the dictionary's error dropped","value":"the feature's activation","factor":false,"activation":true,"reconstruction":true,"feature":true,"direction":false},
  {"name":"add","label":"add","words":"The direction is added, so many times, to what is there.","deed":"{value} of its direction added","value":"how much of the direction","factor":false,"activation":false,"reconstruction":false,"feature":true,"direction":true},
  {"name":"scale","label":"scale","words":"The feature is multiplied: 0 takes it out, 2 doubles it, and where it is silent it stays so.","deed":"multiplied by {value}","value":"a factor","factor":true,"activation":true,"reconstruction":false,"feature":true,"direction":false},
  {"name":"project_out","label":"project out","words":"All that points along the direction is taken out.","deed":"its direction taken out","value":null,"factor":false,"activation":false,"reconstruction":false,"feature":true,"direction":true},
  {"name":"cap","label":"cap","words":"What points along the direction is cut down to a bound where it is above it.","deed":"its direction held at {value} at most","value":"the largest component along the direction","factor":false,"activation":false,"reconstruction":false,"feature":true,"direction":true},
  {"name":"amplify","label":"amplify","words":"What points along the direction is multiplied: what does not stays as it is.","deed":"what points along its direction multiplied by {value}","value":"a factor of the component along the direction","factor":true,"activation":false,"reconstruction":false,"feature":true,"direction":true},
  {"name":"reconstruct","label":"reconstruct","words":"The dictionary's reconstruction takes the place of what is there, no feature changed: a control.","deed":"replaced by the dictionary's reconstruction","value":null,"factor":false,"activation":false,"reconstruction":true,"feature":false,"direction":false},
];
